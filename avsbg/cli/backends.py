"""What the verbs share: what executes a bundle, by the names that users write, the torch backend included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from avsbg.runtime.backends import Backend, BackendSpec
    from avsbg.runtime.bundle import Bundle

# What a gate says of itself when it failed and the user wants to go on (avsbg.runtime.backends.gate).
OVERRIDDEN = "failed, overridden"
TARGET = "BACKEND[:FORM][:PRECISION]"
TARGET_HELP = (
    "onnxruntime, openvino, torch, tensorrt or tensorrt-rtx; as onnxruntime:FORM with FORM function (the operator's "
    "ONNX body), native (our kernel) or plain (standard operators), as torch:FORM with efficient or published; a "
    "precision that `avsbg convert` made, e.g. onnxruntime:native:fp16; openvino:bf16, where the processor computes in "
    "it; an engine that `avsbg build` made, e.g. tensorrt:plugin:fp16"
)

Engine = Annotated[str | None, typer.Option(metavar="NAME", help="The engine to load, where several would fit.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Load an engine that was not built by you on this machine: it is native code.")
]


def create_backend(
    target: str, bundle: Bundle, *, trust: bool = False, allow_failed_gate: bool = False, **options: Any
) -> Backend:
    """Create the backend of a target, those outside the runtime included.

    Args:
        target: what executes.
        bundle: an open bundle.
        trust: as the user says; an error with a backend that loads no engines.
        allow_failed_gate: run what did not pass its gate, with a warning.
        options: others of the backend; None for its default.
    """
    from avsbg.runtime import backends

    parsed, options = _prepared(target, trust, allow_failed_gate, options)
    created = backends.create(parsed.backend, bundle, **{**parsed.options(), **options})
    _warn(target, created)
    return created


def create_streamed(
    target: str, bundle: Bundle, *, trust: bool = False, allow_failed_gate: bool = False, **options: Any
) -> Backend:
    """As `create_backend`, but what executes clips frame by frame through the graphs of the bundle's stream."""
    from avsbg.runtime.streaming.frame_pair import create_streamed_clip

    parsed, options = _prepared(target, trust, allow_failed_gate, options)
    created = create_streamed_clip(bundle, parsed, **options)
    _warn(target, created)
    return created


def _prepared(
    target: str, trust: bool, allow_failed_gate: bool, options: dict[str, Any]
) -> tuple[BackendSpec, dict[str, Any]]:
    from avsbg.runtime import backends

    backends.register("torch", "avsbg.export.torch_backend:TorchBackend")
    parsed = backends.BackendSpec.parse(target)
    if trust:
        options["trust"] = True
    if allow_failed_gate and "allow_failed_gate" in backends.options(parsed.backend):
        options["allow_failed_gate"] = True
    return parsed, options


def _warn(target: str, created: Backend) -> None:
    if created.gate.get("gate") != OVERRIDDEN:
        return
    from rich.console import Console

    Console(stderr=True).print(
        f"[bold yellow]warning:[/bold yellow] {target} runs although it did not pass its gate: mean IoU of its "
        f"masks {created.gate['miou']:.4f}, demanded {created.gate['least_miou']:g}.",
        highlight=False,
    )
