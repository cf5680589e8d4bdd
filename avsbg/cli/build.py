"""`avsbg build`: a TensorRT engine from a bundle, in the precision asked for or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from avsbg.cli import MAKE, app
from avsbg.cli.output import describe_accuracy, plain_console
from avsbg.progress import phase_bar

if TYPE_CHECKING:
    from rich.console import Console

    from avsbg.runtime.bundle.engine_record import EngineRecord


@app.command(rich_help_panel=MAKE)
def build(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, Argument(help="The bundle that `avsbg export` made; the engine goes there.")],
    backend: Annotated[
        str,
        Option(
            metavar="NAME",
            help="tensorrt (builds for this machine's GPU) or tensorrt-rtx (needs no GPU to build). "
            "All three in one: tensorrt:plugin:fp16.",
        ),
    ],
    implementation: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="How to compute the correlation operator: plugin (our kernels, the default) or plain (standard ones).",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="The type of matrix products and convolutions: fp32, tf32, fp16 or bf16; int8 or fp8 after `avsbg "
            "quantize`. Required, here or in --backend.",
        ),
    ] = None,
    rest: Annotated[
        str | None,
        Option(
            metavar="TYPE", help="For int8 and fp8: the type of all that is not quantized, fp16 or fp32 (the default)."
        ),
    ] = None,
    graph: Annotated[
        str,
        Option(
            metavar="GRAPH",
            help="clip; or encode or decode, the two graphs of a stream (encode with --implementation plain).",
        ),
    ] = "clip",
    batch_range: Annotated[
        tuple[int, int, int],
        Option(metavar="MIN OPT MAX", help="The batch sizes of the engine, in clips: smallest, best, largest."),
    ] = (1, 1, 4),
    compute_capability: Annotated[
        list[int] | None,
        Option(metavar="N", help="With tensorrt-rtx: the GPUs to build for, 86 for 8.6. May be repeated."),
    ] = None,
    workspace: Annotated[int | None, Option(metavar="MB", help="The most scratch memory that a layer may use.")] = None,
    aux_streams: Annotated[
        int | None,
        Option(metavar="N", help="Additional CUDA streams that branches may run on: 0 needs the least memory."),
    ] = None,
    version_compatible: Annotated[
        bool,
        Option("--version-compatible", help="Build an engine that later versions of TensorRT can load (10's in 11)."),
    ] = False,
    strip_weights: Annotated[
        bool, Option("--strip-weights", help="Build without weights; a refit from the ONNX file restores them.")
    ] = False,
    timing_cache: Annotated[
        Path | None, Option(metavar="FILE", help="Cache of tactics: read if it exists, then written.")
    ] = None,
    plugin: Annotated[
        Path | None, Option(metavar="FILE", help="The plugin library. By default the one installed with avsbg.")
    ] = None,
    allow_precision_fallback: Annotated[
        bool, Option("--allow-precision-fallback", help="Keep the engine even if it computes in another precision.")
    ] = False,
    verbose: Annotated[bool, Option("--verbose", help="Show TensorRT's messages.")] = False,
) -> None:
    """Build a TensorRT engine, check the precision that it really has, and add it to the bundle."""
    from avsbg.export.engine.request import BuildError, EngineRequest
    from avsbg.runtime.backends.spec import BackendSpec

    spec = BackendSpec.parse(backend)
    for option, said, given in (
        ("--implementation", spec.operator, implementation),
        ("--precision", spec.precision, precision),
        ("--rest", spec.rest, rest),
    ):
        if said and given:
            raise BuildError(f"--backend {backend} says {said}, and {option} says {given}.", "Give one of the two.")
    if not (spec.precision or precision):
        raise BuildError("an engine has a precision, and none is given.", "For instance --precision fp16.")
    request = EngineRequest(
        backend=spec.backend,  # type: ignore[arg-type]  # checked by the request itself
        precision=spec.precision or precision,  # type: ignore[arg-type]
        operator=spec.operator or implementation or "plugin",  # type: ignore[arg-type]
        clips=batch_range,
        compute_capabilities=tuple(compute_capability or ()),
        workspace_mb=workspace,
        aux_streams=aux_streams,
        version_compatible=version_compatible,
        strip_weights=strip_weights,
        timing_cache=timing_cache,
        graph=graph,
        rest=spec.rest or rest,
    )
    with phase_bar() as (bar, progress):
        _log_to_console(bar.console, verbose)
        from avsbg.export.engine.build import build_into_bundle

        def report(line: str) -> None:
            bar.print(line)
            progress(line, 0, None)

        built = build_into_bundle(
            bundle,
            request,
            report=report,
            progress=progress,
            plugin=plugin,
            allow_precision_fallback=allow_precision_fallback,
        )
    _show(plain_console(), bundle, built.name, built.record)


def _log_to_console(console: Console, verbose: bool) -> None:
    import logging

    from rich.logging import RichHandler

    logger = logging.getLogger("avsbg.tensorrt")
    logger.addHandler(RichHandler(console=console, show_path=False, markup=False))
    logger.setLevel(logging.INFO if verbose else logging.ERROR)
    logger.propagate = False


def _show(console: Console, bundle: Path, name: str, record: EngineRecord) -> None:
    size = (bundle / record.file).stat().st_size
    products = ", ".join(f"{count} in {kind}" for kind, count in record.realised.products.items())
    unreported = record.realised.unreported
    memory = [f"{kind} {size / 1e6:.1f} MB" for kind, size in record.memory if size is not None]
    console.print(f"[bold]{name}[/bold]")
    console.print(f"  {size / 1e6:.1f} MB, built in {record.build_seconds:.1f} s, {record.realised.layers} layers")
    console.print(f"  products (read back from the {record.realised.source}): {products}")
    for line in record.realised.differing:
        console.print(f"  [yellow]not in {record.precision}: {line}[/yellow]")
    if unreported:
        names = f"{unreported[0]}{' ...' if len(unreported) > 1 else ''}"
        console.print(f"  [yellow]TensorRT does not say in which type it computes {len(unreported)}: {names}[/yellow]")
    console.print(f"  memory for {next(iter(record.profile.values())).largest[0]} clips: {', '.join(memory)}")
    accuracy = record.accuracy
    if accuracy is None:
        unmeasured = "not measured; `avsbg verify` holds the two graphs of a stream together against PyTorch"
        console.print(f"  accuracy: {unmeasured}")
    else:
        emulated = "(emulated) " if accuracy.emulated else ""
        console.print(f"  the graph {emulated}against PyTorch: mIoU of the masks {describe_accuracy(accuracy)}")
    if record.device.name is None:
        console.print("  the engine itself was not run: that needs a GPU of that kind")
    for tool, command in record.commands.items():
        console.print(f"  with {tool}: {command}")
