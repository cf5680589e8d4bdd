"""Exported graphs on silence, black frames and classes that nothing falls into: PyTorch's numbers, and no NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avsbg.export.exporter import export_graphs
from avsbg.export.graphs import AudioForm
from avsbg.export.shape import ClipShape
from avsbg.export.weights import from_seed
from avsbg.model import NETWORKS, named_variant
from fixtures.degenerate import compare_export_with_pytorch, compare_with_pytorch

pytestmark = pytest.mark.slow

SHAPE = ClipShape(2, 32, 32)
SMALL = {"encoder": "pvt_v2_b0"}
CASES = {
    "avsbench": SMALL,
    "lvs": {},
    "mssl": {},
    "mssl as published": {"form": "published"},
    "3dc": {},
    "avsegformer": SMALL,
}


def test_graphs_that_ignore_the_sound(salient) -> None:
    compare_export_with_pytorch(salient.bundle, salient.module)


def test_avs_bg(small) -> None:
    compare_export_with_pytorch(small.bundle, small.module)


@pytest.mark.parametrize("case", CASES)
def test_a_graph(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A translation that has to decompose the program takes twice as long.
    monkeypatch.delattr(torch.export.ExportedProgram, "run_decompositions")
    name = case.partition(" ")[0]
    # VGGish takes a waveform through its own graph in every other test; its export takes as long as a network's.
    form = AudioForm.EMBEDDING if NETWORKS[name].takes_embeddings else AudioForm.WAVEFORM
    module, _ = from_seed(named_variant(name, **CASES[case]), form, seed=1)
    if name == "mssl":  # features are not negative, so no position of the sound belongs to these classes
        module.network.class_a.weight.data[:5] = -module.network.class_a.weight.data[:5].abs()
    export_graphs(module, SHAPE, tmp_path, lambda _: None)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (1, 2, 32, 32, 3), dtype=np.uint8)
    sound = rng.uniform(0, 1, (1, *form.shape(2, module.network.record))).astype(np.float32)
    found = compare_with_pytorch(tmp_path / "clip.onnx", module, frames, form.value, sound)
    assert name != "mssl" or found[1].max() <= 1
