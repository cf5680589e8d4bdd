"""A network ready for export, and the record of where its weights come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from avsbg.export.editor import load_graph
from avsbg.export.graphs import AudioForm, ClipGraph, needs_audio_encoder
from avsbg.export.shape import ExportError
from avsbg.export.source import NetworkSource
from avsbg.model import AudioEncoderName, Variant, build, create_audio_encoder, fill_from_seed, load_checkpoint
from avsbg.model.published import ignored_keys, published_keys
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import CheckpointRecord, WeightsRecord


def load_weights(
    source: NetworkSource, audio: AudioForm, report: Callable[[str], None] = lambda _: None
) -> tuple[ClipGraph, WeightsRecord]:
    """The network of a source with its weights; errors as of `from_checkpoints`."""
    if source.checkpoint is None:
        assert source.seed is not None
        report(f"making random weights from seed {source.seed}")
        return from_seed(source.variant, audio, source.seed)
    report(f"loading {source.checkpoint}")
    # A run's folder always has its audio encoder's weights; a graph that takes embeddings does without.
    of_sound = None if source.is_run and audio is AudioForm.EMBEDDING else source.audio_checkpoint
    return from_checkpoints(
        source.variant, audio, source.checkpoint, of_sound, audio_encoder=source.audio_encoder, report=report
    )


def from_seed(
    variant: Variant, audio: AudioForm, seed: int, audio_encoder: AudioEncoderName = "vggish"
) -> tuple[ClipGraph, WeightsRecord]:
    """A network (and an audio encoder, where the form needs one) with random weights that depend on `seed` alone."""
    network = build(variant)
    fill_from_seed(network, seed)
    encoder = None
    if needs_audio_encoder(variant, audio):
        encoder = create_audio_encoder(audio_encoder)
        fill_from_seed(encoder, seed)
    return ClipGraph(network, audio, encoder), WeightsRecord(seed=seed, audio_encoder=audio_encoder)


def from_checkpoints(
    variant: Variant,
    audio: AudioForm,
    checkpoint: Path,
    audio_checkpoint: Path | None = None,
    *,
    audio_encoder: AudioEncoderName = "vggish",
    report: Callable[[str], None] = lambda _: None,
) -> tuple[ClipGraph, WeightsRecord]:
    """A network with the weights of a checkpoint, and its audio encoder with its own where the form needs one.

    `report` is told what was taken off around a state dict.

    Raises:
        ExportError: the form needs an audio encoder and no checkpoint of one is given, or the other way round.
        CheckpointError: a checkpoint cannot be read or does not fit.
    """
    needed = needs_audio_encoder(variant, audio)
    called, option = ("VGGish", "--vggish") if audio_encoder == "vggish" else ("the audio encoder", "--audio-weights")
    if needed and audio_checkpoint is None:
        raise ExportError(
            f"the audio form {audio.value} needs {called}'s weights.",
            f"Give their file with {option}, or choose --audio embedding.",
        )
    if not needed and audio_checkpoint is not None:
        raise ExportError(
            f"this graph contains no audio encoder, so the weights {audio_checkpoint} would go nowhere.",
            f"Leave out {option}.",
        )
    network = build(variant)
    _load(network, checkpoint, report)
    records = [CheckpointRecord(role="network", name=checkpoint.name, sha256=sha256(checkpoint))]
    encoder = None
    if audio_checkpoint is not None:
        encoder = create_audio_encoder(audio_encoder)
        _load(encoder, audio_checkpoint, report)
        digest = sha256(audio_checkpoint)
        records.append(CheckpointRecord(role=audio_encoder, name=audio_checkpoint.name, sha256=digest))
    return ClipGraph(network, audio, encoder), WeightsRecord(checkpoints=tuple(records), audio_encoder=audio_encoder)


def _load(network: nn.Module, path: Path, report: Callable[[str], None]) -> None:
    loaded = load_checkpoint(network, path)
    if loaded.unwrapped:
        report(f"{path.name}: its state dict was read without {', '.join(loaded.unwrapped)} around it")


def read_graph_weights(bundle: Bundle, graph: str = "clip") -> dict[str, Tensor]:
    """The weights of a bundle's graph under their names in PyTorch; those that are merged in the graph as they were."""
    record = bundle.graph(graph)
    weights = {} if record.unmerged is None else load_file(bundle.file(record.unmerged))
    for name, value in load_graph(bundle.file(record.file)).graph.initializers.items():
        assert value.const_value is not None
        array = value.const_value.numpy()
        array = array.T if name.endswith(".T") else array
        weights[name.removesuffix(".T")] = torch.from_numpy(np.array(array))
    return weights


def load_graph_weights(graph: ClipGraph, weights: Mapping[str, Tensor]) -> None:
    """Load what `read_graph_weights` returned; an ExportError where that lacks parameters of the module.

    Those that no mask depends on, of the form `published`, keep their values.
    """
    state, names = graph.state_dict(), published_keys(graph.network)
    counters = {name for name in state if name.endswith(".num_batches_tracked")}  # training's, not in an ONNX graph
    ignored = set(ignored_keys(graph.network, names.values()))
    unused = {f"network.{key}" for key, name in names.items() if name in ignored}
    missing = sorted(set(state) - set(weights) - counters - unused)
    if missing:
        raise ExportError(f"the graph lacks {len(missing)} weights of the network, {missing[0]} the first of them.")
    graph.load_state_dict({name: weights[name] for name in state if name in weights}, strict=False)
