"""The cases of a comparison: each bundle with each backend, and each form in which that backend can run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import Ran
from avsbg.model import Variant
from avsbg.runtime import backends
from avsbg.runtime.backends import OperatorImplementation as Implementation
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST, MergeRecord

GRAPH = "clip"

backends.register("torch", "avsbg.export.torch_backend:TorchBackend")


@dataclass(frozen=True)
class BenchmarkCase:
    """A bundle on a backend; `options` are the backend's."""

    label: str
    bundle: Bundle
    backend: str
    options: dict[str, Any]

    def create(self) -> backends.Backend:
        """Its backend; to be entered."""
        return backends.create(self.backend, self.bundle, graph=GRAPH, **self.options)

    @property
    def merges(self) -> tuple[MergeRecord, ...]:
        """The merges in the graph that it executes; PyTorch executes the network as it is."""
        return () if self.backend == "torch" else self.bundle.graph(GRAPH).merges

    @property
    def variant(self) -> Variant:
        """The network as this case computes it; a `VariantError` if the bundle's is none that this version knows."""
        variant = Variant.from_dict(self.bundle.manifest.variant)
        return replace(variant, form=self.form) if self.form else variant

    @property
    def form(self) -> str | None:
        """The form of the network that PyTorch executes, where the case says it; `native` is the efficient one."""
        operator = self.options.get("operator") if self.backend == "torch" else None
        return "efficient" if operator == Implementation.NATIVE else operator and str(operator)


def describe_bundle(bundle: Bundle, **changes: Any) -> Ran:
    """The network of a bundle, by the hashes of its manifest and graphs; `changes` are other fields of `Ran`."""
    manifest = bundle.manifest
    files = sorted({file for graph in manifest.graphs.values() for file in graph.files})
    hashes = {MANIFEST: bundle.manifest_sha256, **{file: manifest.files[file].sha256 for file in files}}
    known = {"variant": manifest.variant, "weights": manifest.weights.model_dump(mode="json"), "files": hashes}
    return Ran(network=manifest.name, **{**known, **changes})


def list_cases(
    paths: Sequence[Path],
    targets: Sequence[str],
    *,
    threads: int,
    clips: int | None,
    device: str | None = None,
    trust: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> list[BenchmarkCase]:
    """Every bundle on every target, in the order given.

    Targets are as `BackendSpec` reads them; a bundle without the operator has one implementation on ONNX Runtime.
    `clips` is the fixed number that a backend may plan for, None if it varies; `device` is where every backend runs,
    None for its default; `trust` loads engines that this user did not build on this machine. Targets that are the same
    for a bundle are one case, which `report` is told of. A `BenchmarkError` if one is named twice.
    """
    parsed = [backends.BackendSpec.parse(target) for target in targets]
    # A graph below its accuracy threshold is measured too: the row says so.
    limits = {"threads": threads, "clips": clips, "allow_failed_accuracy": True, "trust": trust or None}
    known = {target.backend: backends.options(target.backend) for target in parsed}
    bundles = [Bundle.open(path) for path in paths]
    found: list[BenchmarkCase] = []
    asked: dict[str, list[backends.BackendSpec]] = {}
    for bundle, bundle_label in zip(bundles, _labels(bundles), strict=True):
        for target in parsed:
            settled = _settle(bundle, target, device)
            label = f"{bundle_label}:{settled}"
            if label in asked:
                if target in asked[label]:
                    raise BenchmarkError(f"{label} takes part twice.", "Name each bundle and each target once.")
                asked[label].append(target)  # two implementations that are one for this bundle
                continue
            asked[label] = [target]
            options = settled.options() | {name: limits[name] for name in limits if name in known[target.backend]}
            options["device"] = device  # refused by a backend that has no choice of it
            given = {name: value for name, value in options.items() if value is not None}
            found.append(BenchmarkCase(label, bundle, target.backend, given))
    for label, specs in asked.items():
        if len(specs) > 1:
            report(f"{label} is measured once: {' and '.join(map(str, specs))} are the same for this bundle")
    return found


def _settle(bundle: Bundle, target: backends.BackendSpec, device: str | None) -> backends.BackendSpec:
    """The target with the implementation that will run, where the bundle or the backend's default decides it."""
    if target.backend == "torch":
        variant = bundle.manifest.variant
        form = variant.get("form")  # a network that PyTorch cannot build has none
        if form == "efficient" and variant.get("motion") and (device or "").startswith("cuda"):
            form = Implementation.NATIVE
        return replace(target, operator=target.operator or (Implementation(str(form)) if form else None))
    if target.backend == "openvino":
        return replace(target, operator=None)  # it has one
    if target.backend == "onnxruntime":
        plain = bundle.graph(GRAPH).operator == "plain"
        return replace(target, operator=Implementation.PLAIN if plain else target.operator or Implementation.FUNCTION)
    return target


def _labels(bundles: Sequence[Bundle]) -> list[str]:
    """The bundles' names, followed by their directories' where two bundles share one."""
    names = [bundle.manifest.name for bundle in bundles]
    pairs = zip(names, bundles, strict=True)
    return [name if names.count(name) == 1 else f"{name}@{bundle.path.name}" for name, bundle in pairs]
