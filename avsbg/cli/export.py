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
            help="A network or a variant: avs-bg, avs-bg-without-motion, avsbench, lvs ... (a wrong name lists them); "
            "or a folder that `avsbg train` wrote, with its weights."
        ),
    ],
    output: Annotated[Path, Option("-o", "--output", metavar="BUNDLE", help="The directory to create.")],
    checkpoint: Annotated[
        Path | None, Option(metavar="FILE", help="The network's weights: a published .pth, or .safetensors.")
    ] = None,
    seed: Annotated[
        int | None,
        Option(metavar="N", min=0, help="Random weights instead of a checkpoint: for timing, not for masks."),
    ] = None,
    vggish: Annotated[
        Path | None, Option(metavar="FILE", help="VGGish's weights; needed with --checkpoint unless --audio embedding.")
    ] = None,
    audio_weights: Annotated[
        Path | None, Option(metavar="FILE", help="Weights of the compact audio encoder, trained in VGGish's place.")
    ] = None,
    encoder: Annotated[
        str | None, Option(help="Another encoder than the variant's: pvt_v2_b0 to b5, resnet50, tf_efficientnet_lite0.")
    ] = None,
    classes: Annotated[
        int | None, Option(metavar="N", help="Classes of a network that has them, as avsegformer's 71 of AVSS.")
    ] = None,
    audio: Annotated[
        Literal["waveform", "log-mel", "embedding", "spectrogram"],
        Option(
            help="What the graph takes as sound; what leads from there to the network is part of it. Log-mel and "
            "embeddings are VGGish's, a spectrogram is a network's own."
        ),
    ] = "waveform",
    frames: Annotated[int, Option(metavar="N", help="Frames per clip, one per second.")] = 5,
    size: Annotated[
        str | None,
        Option(
            metavar="N|HxW",
            help="Height and width of the frames, multiples of 32; by default 224, or what a run was trained on.",
        ),
    ] = None,
    stream: Annotated[
        bool,
        Option(
            "--stream",
            help="Also export the graphs of a stream, encode and decode, which pay for one new frame at a time.",
        ),
    ] = False,
    no_merge: Annotated[
        bool,
        Option(
            "--no-merge",
            help="Keep neighbouring convolutions that are otherwise merged, exactly, into smaller ones (the manifest "
            "lists them).",
        ),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Export a network to a bundle: ONNX graphs, weights, a manifest and test vectors.

    The bundle appears only when ONNX Runtime has reproduced PyTorch's outputs from it. It says where its weights come
    from: give exactly one of --checkpoint and --seed, or the folder of a training run.
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
