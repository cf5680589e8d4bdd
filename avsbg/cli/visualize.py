"""`avsbg visualize`: what a network attends to in a video, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from avsbg.cli import RUN, app
from avsbg.cli.backends import join_names, warn_of_accuracy
from avsbg.cli.interruption import interruptible
from avsbg.cli.options import PANEL, AllowFailedAccuracy, BundlePath, NoSound, Overwrite, Threshold
from avsbg.cli.output import plain_console


@app.command(rich_help_panel=RUN)
def visualize(  # noqa: PLR0917  (each is an option by name)
    bundle: BundlePath,
    video: Annotated[Path, Argument(help="A video with sound, in any format that FFmpeg reads.")],
    output: Annotated[
        Path | None,
        Option("-o", "--output", metavar="FOLDER", help="The folder to create. By default VIDEO-visualized."),
    ] = None,
    pixel: Annotated[
        list[str] | None,
        Option(
            metavar="X,Y",
            help="Also show the correlation of this pixel with every position of the neighbouring frame. In pixels of "
            "the video, from the upper left. May be repeated.",
        ),
    ] = None,
    frame: Annotated[
        int | None, Option(min=0, metavar="SECOND", help="The second whose frame contains the pixel.")
    ] = None,
    stage: Annotated[
        int | None, Option(metavar="N", help="The stage of the correlation, 0 the finest. By default all.")
    ] = None,
    start: Annotated[
        int | None,
        Option(metavar="SECOND", help="Begin with the clip that contains this second. By default that of --frame."),
    ] = None,
    limit: Annotated[int, Option(min=1, metavar="CLIPS", help="The number of clips of T seconds.")] = 1,
    backend: Annotated[
        str,
        Option(
            metavar="NAME",
            help="onnxruntime: other backends do not return the maps. All three in one: onnxruntime:plain:fp16.",
            rich_help_panel=PANEL,
        ),
    ] = "onnxruntime",
    implementation: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="How to compute the correlation operator: function (the ONNX function in the graph) or plain "
            "(standard operators).",
            rich_help_panel=PANEL,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="fp32, or one that `avsbg quantize` added: fp16, bf16, int8, fp8.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    graph: Annotated[str | None, Option(hidden=True, help="A graph by its name, e.g. clip.plain.fp16.")] = None,
    threshold: Threshold = 0.5,
    no_sound: NoSound = False,
    allow_failed_accuracy: AllowFailedAccuracy = False,
    overwrite: Overwrite = False,
) -> None:
    """Show what a network attends to: its attention maps as heat maps over the frames (the paper's Figure 6).

    For each clip FOLDER receives sheet.png (frames, masks, and the maps of each stage), a picture of each map, and
    maps.npz; for each --pixel a picture of its slice of the correlation volume; and visualize.json. The maps are read
    from inside the bundle's graph in ONNX Runtime; PyTorch is not needed.
    """
    from avsbg.export.visualize.video import VisualizeOptions, visualize_video
    from avsbg.progress import ProgressBars
    from avsbg.runtime.bundle import Bundle

    graph = graph or _graph(join_names(backend, implementation, precision))
    options = VisualizeOptions(
        graph,
        start,
        limit,
        tuple(_pixel(text) for text in pixel or ()),
        frame,
        stage,
        no_sound,
        threshold,
        allow_failed_accuracy,
    )
    folder = video.with_name(f"{video.stem}-visualized") if output is None else output
    with interruptible(), ProgressBars() as bars:
        with bars.console.status("checking the bundle"):
            opened = Bundle.open(bundle)
        summary = visualize_video(opened, video, folder, options, replace=overwrite, progress=bars)
    warn_of_accuracy(graph, summary["graph"])
    _tell(summary, folder)


def _graph(backend: str) -> str:
    """The name of the graph to read the maps from; a `VisualizeError` if the backend does not give them."""
    from avsbg.export.visualize.maps import VisualizeError
    from avsbg.runtime.backends.spec import BackendSpec, OperatorImplementation
    from avsbg.runtime.bundle.graph_name import GraphName

    spec = BackendSpec.parse(backend)
    plain = OperatorImplementation.PLAIN
    if spec.backend != "onnxruntime" or spec.operator not in (None, OperatorImplementation.FUNCTION, plain):
        raise VisualizeError(
            f"{backend} does not give attention maps: they are tensors inside a graph, which only onnxruntime:function "
            "and onnxruntime:plain return.",
            "Leave --backend and --implementation out. `avsbg verify` compares the outputs of other backends with "
            "PyTorch's.",
        )
    return str(GraphName("clip", spec.operator == plain, spec.precision or "fp32", spec.rest))


def _pixel(text: str) -> tuple[int, int]:
    import re

    from avsbg.export.visualize.maps import VisualizeError

    match = re.fullmatch(r"\s*(-?\d+)\s*,\s*(-?\d+)\s*", text)
    if match is None:
        raise VisualizeError(f"{text!r} is no pixel.", "Write it as X,Y, for instance --pixel 640,360.")
    return int(match[1]), int(match[2])


def _tell(summary: dict[str, Any], folder: Path) -> None:
    """Print the summary in a few lines."""
    from avsbg.export.visualize.maps import TITLES

    console = plain_console(markup=False)
    for clip in summary["clips"]:
        console.print(f"{folder / clip['sheet']}: seconds {clip['seconds'][0]} to {clip['seconds'][-1]}")
        for one in clip["maps"]:
            low, middle, high = (one["quantiles"][q] for q in ("0.01", "0.5", "0.99"))
            console.print(
                f"  {TITLES[one['map']]} {one['stage']}: median {middle:.3g}, 1 % to 99 % {low:.3g} to {high:.3g}"
            )
    for one in summary["slices"]:
        console.print(f"{folder / one['picture']}: second {one['second']} against second {one['partner']}")
    for kind, why in summary["missing"].items():
        console.print(f"no {TITLES[kind]}: {why}")
    console.print(f"{folder / 'visualize.json'}")
