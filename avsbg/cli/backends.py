"""The backends that users name, PyTorch's included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsbg.runtime.backends import Backend, BackendSpec
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.streaming.frame_pair import StreamedClip


def join_names(backend: str, implementation: str | None, precision: str | None) -> str:
    """Join what the three options name into one text, as `BackendSpec` reads it: it refuses what is said twice."""
    return ":".join(filter(None, (backend, implementation, precision)))


def create_backend(
    text: str, bundle: Bundle, *, trust: bool = False, allow_failed_accuracy: bool = False, **options: Any
) -> Backend:
    """Create the backend that a user names, as `BackendSpec` reads it.

    Args:
        trust: as the user says; an error with a backend that loads no engines.
        allow_failed_accuracy: run what misses its accuracy threshold, with a warning.
        options: others of the backend; None for its default.
    """
    from avsbg.runtime import backends

    spec, options = _prepare(text, trust, allow_failed_accuracy, options)
    created = backends.create(spec.backend, bundle, **{**spec.options(), **options})
    warn_of_accuracy(text, created.accuracy_check)
    return created


def create_streamed(
    text: str, bundle: Bundle, *, trust: bool = False, allow_failed_accuracy: bool = False, **options: Any
) -> StreamedClip:
    """Create the backend as `create_backend` does, but to execute clips frame by frame through a stream's graphs."""
    from avsbg.runtime.streaming.frame_pair import create_streamed_clip

    spec, options = _prepare(text, trust, allow_failed_accuracy, options)
    created = create_streamed_clip(bundle, spec, **options)
    warn_of_accuracy(text, created.accuracy_check)
    return created


def _prepare(
    text: str, trust: bool, allow_failed_accuracy: bool, options: dict[str, Any]
) -> tuple[BackendSpec, dict[str, Any]]:
    from avsbg.runtime import backends

    backends.register("torch", "avsbg.export.torch_backend:TorchBackend")
    spec = backends.BackendSpec.parse(text)
    if trust:
        options["trust"] = True
    if allow_failed_accuracy and "allow_failed_accuracy" in backends.options(spec.backend):
        options["allow_failed_accuracy"] = True
    return spec, options


def warn_of_accuracy(text: str, check: Mapping[str, Any]) -> None:
    """Print a warning where what a user named runs although it missed its accuracy threshold."""
    from avsbg.runtime.backends.base import FAILED

    if check.get("gate") == FAILED:
        from rich.console import Console

        Console(stderr=True).print(
            f"[bold yellow]warning:[/bold yellow] {text} runs although it missed its accuracy threshold: mean IoU of "
            f"its masks {check['miou']:.4f}, demanded {check['least_miou']:g}.",
            highlight=False,
        )
