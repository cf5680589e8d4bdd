"""A network ready for export, and the record of where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from avsbg.export.graphs import AudioForm, ClipGraph, needs_vggish
from avsbg.export.shape import ExportError
from avsbg.model import Variant, VGGish, build, fill_from_seed, load_checkpoint
from avsbg.runtime.bundle import sha256
from avsbg.runtime.manifest import CheckpointRecord, WeightsRecord


def from_seed(variant: Variant, audio: AudioForm, seed: int) -> tuple[ClipGraph, WeightsRecord]:
    """A network (and VGGish, where the form needs one) with random weights that depend on `seed` alone."""
    network = build(variant)
    fill_from_seed(network, seed)
    vggish = None
    if needs_vggish(variant, audio):
        vggish = VGGish()
        fill_from_seed(vggish, seed)
    return ClipGraph(network, audio, vggish), WeightsRecord(seed=seed)


def from_checkpoints(
    variant: Variant, audio: AudioForm, checkpoint: Path, vggish_checkpoint: Path | None = None
) -> tuple[ClipGraph, WeightsRecord]:
    """A network with the weights of a checkpoint, and VGGish with its own where the form needs one.

    Raises:
        ExportError: the form needs a VGGish and no checkpoint of one is given, or the other way round.
        CheckpointError: a checkpoint cannot be read or does not fit.
    """
    if needs_vggish(variant, audio) and vggish_checkpoint is None:
        raise ExportError(
            f"the audio form {audio.value} needs VGGish's weights.",
            "Give their file with --vggish, or choose --audio embedding.",
        )
    if not needs_vggish(variant, audio) and vggish_checkpoint is not None:
        raise ExportError(
            f"this graph contains no VGGish, so the weights {vggish_checkpoint} would go nowhere.",
            "Leave out --vggish.",
        )
    network = build(variant)
    load_checkpoint(network, checkpoint)
    records = [CheckpointRecord(role="network", name=checkpoint.name, sha256=sha256(checkpoint))]
    vggish = None
    if vggish_checkpoint is not None:
        vggish = VGGish()
        load_checkpoint(vggish, vggish_checkpoint)
        records.append(CheckpointRecord(role="vggish", name=vggish_checkpoint.name, sha256=sha256(vggish_checkpoint)))
    return ClipGraph(network, audio, vggish), WeightsRecord(checkpoints=tuple(records))


def read_graph_weights(path: Path) -> dict[str, Tensor]:
    """The weights of an exported graph under their names in PyTorch.

    Args:
        path: the ONNX file, beside its external data.
    """
    weights = {}
    for name, value in ir.load(path).graph.initializers.items():
        assert value.const_value is not None
        array = value.const_value.numpy()
        array = array.T if name.endswith(".T") else array
        weights[name.removesuffix(".T")] = torch.from_numpy(np.array(array))
    return weights


def load_graph_weights(graph: ClipGraph, weights: Mapping[str, Tensor]) -> None:
    """Load what `read_graph_weights` returned.

    Raises:
        ExportError: the graph holds other parameters than the module.
    """
    state = graph.state_dict()
    counters = {name for name in state if name.endswith(".num_batches_tracked")}  # training's, not in an ONNX graph
    missing = sorted(set(state) - set(weights) - counters)
    if missing:
        raise ExportError(f"the graph lacks {len(missing)} weights of the network, {missing[0]} the first of them.")
    graph.load_state_dict({name: weights[name] for name in state if name in weights}, strict=False)
