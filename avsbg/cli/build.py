"""`avsbg build`: a TensorRT engine from a bundle, in the precision asked for or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avsbg.cli import app

if TYPE_CHECKING:
    from rich.console import Console

    from avsbg.runtime.bundle.engine_record import EngineRecord


@app.command()
def build(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, typer.Argument(help="The bundle that `avsbg export` made; the engine goes there.")],
    backend: Annotated[
        str, typer.Option(help="tensorrt (builds for this machine's GPU) or tensorrt-rtx (needs no GPU to build).")
    ],
    precision: Annotated[
        str,
        typer.Option(
            help="fp32, tf32, fp16, bf16; int8 or fp8 after `avsbg convert`: the type of the products. docs/engines.md."
        ),
    ],
    operator: Annotated[
        str, typer.Option(help="plugin (our kernels for the correlation) or plain (standard operators only).")
    ] = "plugin",
    graph: Annotated[
        str, typer.Option(help="clip; or encode and decode, the two graphs of a stream (encode with --operator plain).")
    ] = "clip",
    clips: Annotated[
        tuple[int, int, int], typer.Option(metavar="MIN OPT MAX", help="The batches that the engine takes, in clips.")
    ] = (1, 1, 4),
    compute_capability: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="With tensorrt-rtx: what to build for, 86 for 8.6. May be repeated."),
    ] = None,
    workspace: Annotated[int | None, typer.Option(metavar="MB", help="The most scratch memory of a layer.")] = None,
    aux_streams: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="CUDA streams beside the engine's own that branches may run on: 0 takes the least memory.",
        ),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Runs on later minor versions of TensorRT too.")
    ] = False,
    strip_weights: Annotated[
        bool, typer.Option("--strip-weights", help="Leave the weights out; a refit from the ONNX file restores them.")
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tactics measured earlier, read if there, and written.")
    ] = None,
    plugin: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The plugin library; by default the one installed with avsbg.")
    ] = None,
    allow_precision_fallback: Annotated[
        bool, typer.Option("--allow-precision-fallback", help="Keep an engine that computes in another precision.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show TensorRT's messages.")] = False,
) -> None:
    """Build an engine, check the precision that it really has, and add both to the bundle."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from avsbg.export.engine.request import EngineRequest

    request = EngineRequest(
        backend=backend,  # type: ignore[arg-type]  # checked by the request itself
        precision=precision,
        operator=operator,  # type: ignore[arg-type]
        clips=clips,
        compute_capabilities=tuple(compute_capability or ()),
        workspace_mb=workspace,
        aux_streams=aux_streams,
        version_compatible=version_compatible,
        strip_weights=strip_weights,
        timing_cache=timing_cache,
        graph=graph,
    )
    console = Console(highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        _log_to_console(bar.console, verbose)
        from avsbg.export.engine.build import build_into_bundle

        def report(line: str) -> None:
            bar.print(line)
            bar.update(task, description=line, completed=0, total=None)

        def progress(phase: str, done: int, total: int) -> None:
            bar.update(task, description=phase, completed=done, total=total)

        built = build_into_bundle(
            bundle,
            request,
            report=report,
            progress=progress,
            plugin=plugin,
            allow_precision_fallback=allow_precision_fallback,
        )
    _show(console, bundle, built.name, built.record)


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
    memory = [f"{kind} {size / 1e6:.1f} MB" for kind, size in record.memory if size is not None]
    console.print(f"[bold]{name}[/bold]")
    console.print(f"  {size / 1e6:.1f} MB, built in {record.build_seconds:.1f} s, {record.realised.layers} layers")
    console.print(f"  products (read back from the {record.realised.source}): {products}")
    for line in record.realised.differing:
        console.print(f"  [yellow]not in {record.precision}: {line}[/yellow]")
    console.print(f"  memory for {next(iter(record.profile.values())).largest[0]} clips: {', '.join(memory)}")
    accuracy = record.accuracy
    if accuracy is None:
        console.print(
            "  accuracy: not measured; `avsbg verify` holds the two graphs of a stream together against PyTorch"
        )
    else:
        verdict = "" if accuracy.passed else f" [bold red]below the threshold of {accuracy.min_miou}[/bold red]"
        console.print(
            f"  the graph {'(emulated) ' if accuracy.emulated else ''}against PyTorch: mIoU of the masks "
            f"{accuracy.miou:.4f}{verdict}, {accuracy.flipped:.2%} of "
            f"the pixels flipped, logits differ by at most {accuracy.largest_difference:.2g}"
        )
    if record.device.name is None:
        console.print("  the engine itself was not run: that needs a GPU of that kind")
    for tool, command in record.commands.items():
        console.print(f"  with {tool}: {command}")
