"""`avsbg export`: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from avsbg.cli import MAKE, app
from avsbg.cli.options import Overwrite
from avsbg.cli.output import plain_console

if TYPE_CHECKING:
    from avsbg.model import AudioEncoderName, Variant


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
    from avsbg.export.shape import ClipShape, ExportError, check_streamable
    from avsbg.model import NETWORKS

    given = {"checkpoint": checkpoint, "seed": seed, "vggish": vggish, "audio-weights": audio_weights}
    run = Path(network)
    if (run / "run.json").is_file():
        source, own_size = _of_run(run, {**given, "encoder": encoder, "classes": classes})
    else:
        source, own_size = _of_variant(network, {"encoder": encoder, "classes": classes}, given), "224"
    record = NETWORKS[source.variant.network]
    shape = ClipShape.parse(frames, size or own_size, record.min_frames)
    if stream:
        check_streamable(record)

    console = plain_console()
    start = time.monotonic()

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - start:6.1f} s[/dim]  {line}")
        status.update(line)

    with console.status("loading PyTorch") as status:
        try:
            from avsbg.export.bundle_writer import export_bundle
            from avsbg.export.graphs import AudioForm
            from avsbg.export.weights import from_checkpoints, from_seed
        except ModuleNotFoundError as error:
            hint = "Install what it needs with `pip install 'avsbg[export,cpu]'`."
            raise ExportError(f"exporting needs {error.name}, which is not installed.", hint) from error

        form = AudioForm[audio.replace("-", "_").upper()]
        if source.checkpoint is not None:
            report(f"loading {source.checkpoint}")
            # A run's folder always has its audio encoder's weights; a graph that takes embeddings does without.
            of_sound = None if source.is_run and form is AudioForm.EMBEDDING else source.audio_checkpoint
            graph, weights = from_checkpoints(
                source.variant, form, source.checkpoint, of_sound, audio_encoder=source.audio_encoder, report=report
            )
        else:
            assert source.seed is not None
            report(f"making random weights from seed {source.seed}")
            graph, weights = from_seed(source.variant, form, source.seed)
        manifest = export_bundle(
            graph,
            output,
            weights=weights,
            shape=shape,
            stream=stream,
            merging=not no_merge,
            replace_existing=overwrite,
            report=report,
        )
    megabytes = sum(record.bytes for record in manifest.files.values()) / 1e6
    console.print(
        f"{output}: {manifest.name}, {manifest.parameters.inference:,} parameters, "
        f"{len(manifest.files)} files, {megabytes:.0f} MB"
    )


@dataclass(frozen=True)
class _Source:
    """A network, and the origin of its weights."""

    variant: Variant
    checkpoint: Path | None = None
    audio_checkpoint: Path | None = None
    audio_encoder: AudioEncoderName = "vggish"
    seed: int | None = None
    is_run: bool = False


def _of_variant(name: str, switches: dict[str, Any], given: dict[str, Any]) -> _Source:
    from avsbg.export.shape import ExportError
    from avsbg.model.variants import named_variant

    checkpoint, seed = given["checkpoint"], given["seed"]
    vggish, compact = given["vggish"], given["audio-weights"]
    if (checkpoint is None) == (seed is None):
        hint = "--checkpoint FILE takes trained weights, --seed N makes random ones (to measure speed, not to segment)."
        raise ExportError("give exactly one of --checkpoint and --seed.", hint)
    if seed is not None and vggish is not None:
        raise ExportError("--vggish belongs to --checkpoint; with --seed, VGGish's weights are random too.")
    if seed is not None and compact is not None:
        hint = "With --seed the graph holds a random VGGish."
        raise ExportError("--audio-weights belongs to --checkpoint.", hint)
    if vggish is not None and compact is not None:
        raise ExportError("a network has one audio encoder.", "Give --vggish or --audio-weights, not both.")
    variant = named_variant(name, **{switch: value for switch, value in switches.items() if value is not None})
    return _Source(variant, checkpoint, vggish or compact, "vggish" if compact is None else "compact", seed)


def _of_run(path: Path, given: dict[str, Any]) -> tuple[_Source, str]:
    """A training run's network, and the size of its frames."""
    from avsbg.export.shape import ExportError
    from avsbg.model.training.run_directory import read_trained

    run = read_trained(path)
    unfit = ["checkpoint", "seed", "encoder", "classes", "audio-weights"]
    for name in [*unfit, "vggish"] if run.audio_weights else unfit:
        if given[name] is not None:
            raise ExportError(f"--{name} does not apply to {path}: the run's record says what was trained.")
    own = run.audio_weights is not None
    audio, name = run.audio_weights or given["vggish"], run.recipe.audio_encoder if own else "vggish"
    return _Source(run.recipe.variant, run.weights, audio, name, is_run=own), f"{run.height}x{run.width}"
