"""`avsbg export`: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from avsbg.cli import MAKE, app
from avsbg.cli.options import Overwrite
from avsbg.cli.output import plain_console


@app.command(rich_help_panel=MAKE)
def export(  # noqa: PLR0917  (each is an option by name)
    network: Annotated[
        str,
        Argument(
            help="A network or a variant: avs-bg, avs-bg-without-motion, avsbench, lvs, ... (a wrong name lists them); "
            "or a folder that `avsbg train` wrote, with its weights."
        ),
    ],
    output: Annotated[Path, Option("-o", "--output", metavar="BUNDLE", help="The directory to create.")],
    checkpoint: Annotated[
        Path | None, Option(metavar="FILE", help="The network's weights: a published .pth, or .safetensors.")
    ] = None,
    seed: Annotated[
        int | None,
        Option(metavar="N", min=0, help="Random weights in place of a checkpoint, to measure speed."),
    ] = None,
    vggish: Annotated[
        Path | None,
        Option(metavar="FILE", help="VGGish's weights. Needed with --checkpoint, unless --audio embedding is given."),
    ] = None,
    audio_weights: Annotated[
        Path | None,
        Option(metavar="FILE", help="Weights of the compact audio encoder, if it was trained in place of VGGish."),
    ] = None,
    encoder: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Another visual encoder than the variant's: pvt_v2_b0 to b5, resnet50, tf_efficientnet_lite0.",
        ),
    ] = None,
    classes: Annotated[
        int | None, Option(metavar="N", help="The number of classes, for avsegformer: 71 for AVSS.")
    ] = None,
    audio: Annotated[
        Literal["waveform", "log-mel", "embedding", "spectrogram"],
        Option(
            metavar="KIND",
            help="The graph's input of sound: waveform, log-mel, embedding or spectrogram. The steps from there to the "
            "network are part of the graph. log-mel and embedding are VGGish's; spectrogram is for networks with a "
            "front end of their own.",
        ),
    ] = "waveform",
    frames: Annotated[int, Option(metavar="N", help="Frames per clip, one per second.")] = 5,
    size: Annotated[
        str | None,
        Option(
            metavar="N|HxW",
            help="Height and width of the frames, multiples of 32. By default 224, or the size of the training run.",
        ),
    ] = None,
    stream: Annotated[
        bool,
        Option(
            "--stream",
            help="Also export the graphs of a stream, encode and decode, which compute one new frame at a time.",
        ),
    ] = False,
    no_merge: Annotated[
        bool,
        Option(
            "--no-merge",
            help="Do not merge neighbouring convolutions into smaller ones (the manifest lists the merges).",
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Export a network to a bundle: ONNX graphs, weights, a manifest and test vectors.

    The weights come from exactly one of --checkpoint, --seed, and the folder of a training run. The bundle is
    written only if ONNX Runtime, running it, reproduces PyTorch's outputs.
    """
    from avsbg.export.network import export_network

    console = plain_console()
    start = time.monotonic()

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - start:6.1f} s[/dim]  {line}")
        status.update(line)

    with console.status("looking for the network") as status:
        manifest = export_network(
            network, output,
            checkpoint=checkpoint, seed=seed, vggish=vggish, audio_weights=audio_weights, encoder=encoder,
            classes=classes, audio=audio, frames=frames, size=size, stream=stream, merging=not no_merge,
            overwrite=overwrite, report=report,
        )  # fmt: skip
    megabytes = sum(record.bytes for record in manifest.files.values()) / 1e6
    console.print(
        f"{output}: {manifest.name}, {manifest.parameters.inference:,} parameters, "
        f"{len(manifest.files)} files, {megabytes:.0f} MB"
    )
