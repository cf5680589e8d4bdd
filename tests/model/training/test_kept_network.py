"""The trained network that is kept in the repository: whole, of the documented recipe, using the sound."""

from __future__ import annotations

import hashlib
import runpy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avsbg.model.training.data import AvsBenchDataset
from avsbg.model.training.evaluation import checkpoint_predictor
from avsbg.model.training.recipes import named_recipe
from avsbg.model.training.run_directory import RunDirectory, read_trained
from fixtures import ROOT, avsbench

KEPT = ROOT / "model/trained/s4-small"
MOST_BYTES = 16_000_000


def test_the_files_are_those_of_the_record():
    hashes = RunDirectory(KEPT).read_record()["kept"]
    assert {path.name for path in KEPT.glob("*.safetensors")} == set(hashes)
    for name, expected in hashes.items():
        assert hashlib.sha256((KEPT / name).read_bytes()).hexdigest() == expected
    assert sum(path.stat().st_size for path in KEPT.iterdir()) <= MOST_BYTES


def test_what_is_kept_is_a_run_in_half_the_size(tmp_path):
    keep = runpy.run_path(str(KEPT.parents[2] / "scripts/keep_trained.py"))["main"]
    source = tmp_path / "run"
    shutil.copytree(KEPT, source)
    tensors = {name: tensor.float() for name, tensor in load_file(KEPT / "best.safetensors").items()}
    save_file(tensors, source / "best.safetensors")
    keep(source, tmp_path / "kept")
    kept = load_file(tmp_path / "kept" / "best.safetensors")
    assert {tensor.dtype for tensor in kept.values() if tensor.dim() > 1} == {torch.float16}
    assert {tensor.dtype for tensor in kept.values() if tensor.dim() == 1} == {torch.float32}
    assert all(torch.equal(kept[name].float(), tensor) for name, tensor in tensors.items())
    assert read_trained(tmp_path / "kept").recipe == read_trained(KEPT).recipe
    with pytest.raises(SystemExit, match="leaves the range of float16"):
        save_file(tensors | {"head.0.weight": tensors["head.0.weight"] * 1e9}, source / "best.safetensors")
        keep(source, tmp_path / "lost")
    assert not (tmp_path / "lost").exists()


def test_it_was_trained_by_the_recipe():
    trained = read_trained(KEPT)
    assert trained.recipe == replace(named_recipe("s4/small"), seed=trained.recipe.seed)


@pytest.fixture(scope="module")
def predict():
    trained = read_trained(KEPT)
    return checkpoint_predictor(
        trained.recipe.variant,
        trained.weights,
        audio_encoder=trained.recipe.audio_encoder,
        audio_weights=trained.audio_weights,
        device=torch.device("cpu"),
    )


def test_another_sound_gives_other_masks(predict, tmp_path):
    """As a network with the gates that training begins with would not: their gates hardly depend on the sound."""
    data = avsbench.write_dataset(tmp_path, "s4", size=160, counts={"train": 1, "val": 1, "test": 2})
    first, second = (AvsBenchDataset(data, "s4", "test")[index] for index in (0, 1))
    assert not torch.equal(first.log_mel, second.log_mel)
    own, other = predict(first), predict(first._replace(log_mel=second.log_mel))
    assert own.shape == (5, 160, 160)
    assert np.isfinite(own.numpy()).all()
    assert float((own - other).abs().mean()) > 0.1 * float(own.std())
