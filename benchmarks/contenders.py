"""Who takes part in a comparison: each bundle with each backend, and each form in which that backend can run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.model import Variant
from avsbg.runtime import backends
from avsbg.runtime.bundle import Bundle

GRAPH = "clip"

backends.register("torch", "avsbg.export.torch_backend:TorchBackend")


@dataclass(frozen=True)
class Contender:
    """A bundle on a backend; `options` are the backend's."""

    label: str
    bundle: Bundle
    backend: str
    options: dict[str, Any]

    def create(self) -> backends.Backend:
        """Its backend; to be entered.

        Raises:
            BackendError: the backend refuses the options.
        """
        return backends.create(self.backend, self.bundle, graph=GRAPH, **self.options)

    @property
    def variant(self) -> Variant:
        """The network as this contender computes it.

        Raises:
            VariantError: the bundle's record is of no network that this version knows.
        """
        variant = Variant.from_dict(self.bundle.manifest.variant)
        form = self.options.get("form")
        return replace(variant, form=form) if form else variant


def contenders(
    paths: Sequence[Path],
    backend_names: Sequence[str],
    *,
    operators: Sequence[str] = (),
    forms: Sequence[str] = (),
    threads: int,
    clips: int | None,
) -> list[Contender]:
    """Every bundle on every backend, in the order given.

    Args:
        paths: the bundles.
        backend_names: from `avsbg.runtime.backends.names()`.
        operators: what executes the operator on ONNX Runtime, one row each; by default `function`. A bundle without
            the operator has one row, whatever is asked for.
        forms: how PyTorch computes, one row each; by default as the bundle's variant says.
        threads: for every backend.
        clips: the fixed number of clips that ONNX Runtime may plan for; None if it varies.

    Raises:
        BundleError, BackendError: a bundle cannot be opened, or there is no such backend.
        BenchmarkError: an option that no chosen backend has, or a contender twice.
    """
    for option, given, backend in (("--operator", operators, "onnxruntime"), ("--form", forms, "torch")):
        if given and backend not in backend_names:
            raise BenchmarkError(f"{option} is for the backend {backend}, which is not in this run.")
    for name in backend_names:
        if name not in backends.names():
            raise BenchmarkError(f"unknown backend {name!r}.", f"Choose among: {', '.join(backends.names())}.")
    bundles = [Bundle.open(path) for path in paths]
    found = []
    for bundle, bundle_label in zip(bundles, _labels(bundles), strict=True):
        for name in backend_names:
            for detail, options in _ways(bundle, name, operators, forms):
                limits = {"threads": threads} | ({"clips": clips} if name == "onnxruntime" and clips else {})
                found.append(Contender(f"{bundle_label}:{name}:{detail}", bundle, name, limits | options))
    labels = [contender.label for contender in found]
    if repeated := [label for label in labels if labels.count(label) > 1]:
        raise BenchmarkError(f"{repeated[0]} takes part twice.", "Name each bundle, backend, operator and form once.")
    return found


def _ways(
    bundle: Bundle, backend: str, operators: Sequence[str], forms: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    if backend == "torch":
        return [(form, {"form": form}) for form in forms or (str(bundle.manifest.variant.get("form")),)]
    if backend == "onnxruntime":
        wanted = operators or ("function",)
        if bundle.graph(GRAPH).operator == "plain":
            wanted = ("plain",)
        return [(operator, {"operator": operator}) for operator in wanted]
    return [("default", {})]


def _labels(bundles: Sequence[Bundle]) -> list[str]:
    """The bundles' names, followed by their directories' where two bundles share one."""
    names = [bundle.manifest.name for bundle in bundles]
    return [
        name if names.count(name) == 1 else f"{name}@{bundle.path.name}"
        for name, bundle in zip(names, bundles, strict=True)
    ]
