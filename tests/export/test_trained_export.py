"""A training run's folder, with the audio encoder it trained, becomes a bundle that scores as the run does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from avsbg.export.shape import ExportError
from avsbg.model import build, create_audio_encoder, fill_from_seed, save_checkpoint
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.recipes import named_recipe
from avsbg.model.training.run_directory import RunDirectory
from avsbg.runtime.bundle import Bundle
from fixtures.avsbench import write_dataset
from fixtures.cli import run_avsbg

RECIPE = replace(named_recipe("ms3/small"), epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run as `avsbg train` leaves it, with random weights."""
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "small")
    run.create({"recipe": RECIPE.to_dict(), "data": {"train": {"height": 32, "width": 32}}})
    for module, path in (
        (build(RECIPE.variant), run.weights("best")),
        (create_audio_encoder("compact"), run.audio_weights("best")),
    ):
        fill_from_seed(module, 1)
        save_checkpoint(module, path)
    return run


def _invoke(*command):
    result = run_avsbg(*command)
    assert result.code == 0, result.output
    return result


@pytest.mark.slow
@pytest.mark.parametrize("audio", ["waveform", "log-mel"])
def test_the_bundle_of_a_run_scores_as_the_run(trained, tmp_path, audio):
    bundle, data = tmp_path / "bundle", tmp_path / "data"
    _invoke("export", trained.path, "--audio", audio, "-o", bundle)
    write_dataset(data, "ms3", counts={"train": 1, "val": 1, "test": 3})
    manifest = Bundle.open(bundle).manifest
    assert manifest.weights.audio_encoder == "compact"
    assert [record.role for record in manifest.weights.checkpoints] == ["network", "compact"]
    assert (manifest.clip.height, manifest.clip.width) == (32, 32)
    scores = []
    for model, options in ((trained.path, []), (bundle, ["--backend", "torch"]), (bundle, [])):
        file = tmp_path / "scores.json"
        _invoke("eval", model, "--data", data, "--task", "ms3", "--json", file, *options)
        scores.append([clip["score"]["miou"] for clip in json.loads(file.read_text())["clips"]])
    np.testing.assert_allclose(scores[1:], [scores[0]] * 2, atol=1e-4)


def test_what_a_run_decides_is_not_given_again(trained, tmp_path):
    def error_of(*command):
        return run_avsbg("export", *command, "-o", tmp_path / "b").error

    assert isinstance(error_of(trained.path, "--seed", "1"), ExportError)
    assert "--vggish does not apply" in str(error_of(trained.path, "--vggish", "x.pth"))
    both = error_of("avs-bg", "--checkpoint", "x", "--vggish", "y", "--audio-weights", "z")
    assert "not both" in str(both.hint)
    unfinished = RunDirectory(tmp_path / "unfinished")
    unfinished.create(trained.read_record())
    assert isinstance(error_of(unfinished.path), TrainingError)
