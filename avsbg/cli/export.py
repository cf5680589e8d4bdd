"""`avsbg export`: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from avsbg.cli import app


class Audio(str, Enum):
    """The forms in which a graph can take sound, as users write them."""

    WAVEFORM = "waveform"
    LOG_MEL = "log-mel"
    EMBEDDING = "embedding"


@app.command()
def export(  # noqa: PLR0917  (each is an option by name)
    network: Annotated[
        str,
        typer.Argument(
            help="A network or a variant: avs-bg, avs-bg-without-motion, avsbench ... (a wrong name lists them all)."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The directory to create.")],
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The network's weights: a published .pth, or .safetensors.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random weights instead of a checkpoint: for timing, not for masks.")
    ] = None,
    vggish: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="VGGish's weights; needed with --checkpoint unless --audio embedding."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Another encoder than the variant's: pvt_v2_b0 to pvt_v2_b5, resnet50.")
    ] = None,
    audio: Annotated[
        Audio, typer.Option(help="What the graph takes as sound; what leads from there to the network is part of it.")
    ] = Audio.WAVEFORM,
    frames: Annotated[int, typer.Option(help="Frames per clip, one per second.")] = 5,
    size: Annotated[
        str, typer.Option(metavar="N|HxW", help="Height and width of the frames, multiples of 32.")
    ] = "224",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
) -> None:
    """Export a network to a bundle: ONNX graphs, weights, a manifest and test vectors.

    The bundle appears only when ONNX Runtime has reproduced PyTorch's outputs from it. It says where its weights come
    from: give exactly one of --checkpoint and --seed.
    """
    from rich.console import Console

    from avsbg.export.shape import ClipShape, ExportError
    from avsbg.model.variants import named_variant

    if (checkpoint is None) == (seed is None):
        raise ExportError(
            "give exactly one of --checkpoint and --seed.",
            "--checkpoint FILE takes trained weights, --seed N makes random ones (to measure speed, not to segment).",
        )
    if seed is not None and vggish is not None:
        raise ExportError("--vggish belongs to --checkpoint; with --seed, VGGish's weights are random too.")
    variant = named_variant(network, **({} if encoder is None else {"encoder": encoder}))
    shape = ClipShape.parse(frames, size)

    console = Console(highlight=False, soft_wrap=True)
    start = time.monotonic()

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - start:6.1f} s[/dim]  {line}")
        status.update(line)

    with console.status("loading PyTorch") as status:
        try:
            from avsbg.export.bundle import export_bundle
            from avsbg.export.graphs import AudioForm
            from avsbg.export.weights import from_checkpoints, from_seed
        except ModuleNotFoundError as error:
            raise ExportError(
                f"exporting needs {error.name}, which is not installed.",
                "Install what it needs with `pip install 'avsbg[export,cpu]'`.",
            ) from error

        form = AudioForm[audio.name]
        if checkpoint is not None:
            report(f"loading {checkpoint}")
            graph, weights = from_checkpoints(variant, form, checkpoint, vggish)
        else:
            assert seed is not None
            report(f"making random weights from seed {seed}")
            graph, weights = from_seed(variant, form, seed)
        manifest = export_bundle(graph, output, weights=weights, shape=shape, replace_existing=force, report=report)
    megabytes = sum(record.bytes for record in manifest.files.values()) / 1e6
    console.print(
        f"{output}: {manifest.name}, {manifest.parameters.inference:,} parameters, "
        f"{len(manifest.files)} files, {megabytes:.0f} MB"
    )
