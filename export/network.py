"""The export as one call, which the command line and programs make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from avsbg.export.shape import ClipShape, ExportError, check_streamable
from avsbg.export.source import find_source
from avsbg.model import NETWORKS

if TYPE_CHECKING:
    from avsbg.runtime.bundle.manifest import Manifest

AudioInput = Literal["waveform", "log-mel", "embedding", "spectrogram"]


def export_network(
    network: str | Path,
    output: str | Path,
    *,
    checkpoint: str | Path | None = None,
    seed: int | None = None,
    vggish: str | Path | None = None,
    audio_weights: str | Path | None = None,
    encoder: str | None = None,
    classes: int | None = None,
    audio: AudioInput = "waveform",
    frames: int = 5,
    size: str | None = None,
    stream: bool = False,
    merging: bool = True,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Export a network to a bundle: ONNX graphs, weights, a manifest and test vectors.

    The bundle appears only when ONNX Runtime has reproduced PyTorch's outputs from it. Needs the extra `export`.

    Args:
        network: a network or variant by name, as `avs-bg`, or a folder that `avsbg train` wrote, with its weights.
        output: the directory to create.
        checkpoint: the network's weights, a published .pth or .safetensors; give this or `seed`, but for a folder.
        seed: random weights in place of a checkpoint: for timing, not for masks.
        vggish: VGGish's weights; needed with a checkpoint unless `audio` is `embedding`.
        audio_weights: weights of the compact audio encoder, trained in VGGish's place.
        encoder: another visual encoder than the variant's, by name.
        classes: of a network that has them.
        audio: the form of sound that the graphs take; the way from there to the network is part of them.
        frames: of a clip, one per second.
        size: `N` or `HxW`, multiples of 32; by default 224, or the size of the training run.
        stream: also export the graphs of a stream.
        merging: compute neighbouring convolutions as smaller ones where the numbers stay.
        overwrite: replace an existing bundle.
        report: called with a line for each step.

    Returns:
        The bundle's manifest.

    Raises:
        ExportError: the options contradict each other, the network cannot be exported so, or differs from PyTorch.
        CheckpointError: a checkpoint cannot be read or does not fit.
        BundleError: `output` exists.
    """
    files = {"checkpoint": checkpoint, "vggish": vggish, "audio_weights": audio_weights}
    given = {name: None if path is None else Path(path) for name, path in files.items()}
    source = find_source(network, **given, seed=seed, switches={"encoder": encoder, "classes": classes})
    record = NETWORKS[source.variant.network]
    shape = ClipShape.parse(frames, size or source.size, record.min_frames)
    if stream:
        check_streamable(record)
    report("loading PyTorch")  # which takes seconds
    try:
        from avsbg.export.bundle_writer import export_bundle
        from avsbg.export.graphs import AudioForm, check_form
        from avsbg.export.weights import load_weights
    except ModuleNotFoundError as error:
        hint = "Install what it needs with `pip install 'avsbg[export,cpu]'`."
        raise ExportError(f"exporting needs {error.name}, which is not installed.", hint) from error

    form = AudioForm[audio.replace("-", "_").upper()]
    check_form(record, form)  # before random weights are made, which takes longer
    graph, weights = load_weights(source, form, report=report)
    return export_bundle(
        graph, Path(output),
        weights=weights, shape=shape, stream=stream, merging=merging, replace_existing=overwrite, report=report,
    )  # fmt: skip
