"""One scoring code for PyTorch and for the backends of a bundle, on a tiny data set of each task."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from avsbg.benchmarks.measure.accuracy import bundle_predictor
from avsbg.export.bundle_writer import export_bundle
from avsbg.export.graphs import AudioForm
from avsbg.export.shape import ClipShape
from avsbg.export.weights import from_seed
from avsbg.model import create_network, named_variant, save_checkpoint
from avsbg.model.training.data import AvsBenchDataset
from avsbg.model.training.errors import DatasetError, TrainingError
from avsbg.model.training.evaluation import evaluate, network_predictor
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import ClipRecord
from fixtures.avsbench import write_dataset
from fixtures.cli import run_avsbg
from tools.accuracy import measure_accuracy
from tools.training_tables import accuracy_table

COUNTS = {"train": 2, "val": 1, "test": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("avsbench")
    for task in ("s4", "ms3"):
        write_dataset(root, task, counts=COUNTS)
    return root


def _scores(path):
    document = json.loads(path.read_text())
    figures = [document[average][name] for average in ("per_clip", "per_batch") for name in ("miou", "f_score")]
    return figures + [clip["score"]["f_score"] for clip in document["clips"]]


@pytest.mark.slow
def test_torch_and_onnxruntime_give_the_same_figures(data, tmp_path):
    module, weights = from_seed(named_variant("avs-bg", encoder="pvt_v2_b0"), AudioForm.WAVEFORM, seed=1)
    bundle = tmp_path / "bundle"
    export_bundle(module, bundle, weights=weights, shape=ClipShape(5, 32, 32), stream=True)
    for task in ("s4", "ms3"):
        dataset = AvsBenchDataset(data, task, "test")
        expected = evaluate(dataset, network_predictor(module.network, module.vggish, torch.device("cpu")), batch=2)
        figures = [value for score in (expected.per_clip, expected.per_batch) for value in (score.miou, score.f_score)]
        figures += [clip.score.f_score for clip in expected.clips]
        assert 0 < figures[0] < 1
        for backend in ("torch", "onnxruntime"):
            command = ["eval", str(bundle), "--data", str(data), "--task", task, "--backend", backend, "--batch", "2"]
            result = run_avsbg(*command, "--json", tmp_path / "scores.json")
            assert result.code == 0, result.output
            np.testing.assert_allclose(_scores(tmp_path / "scores.json"), figures, atol=1e-4)
            assert json.loads((tmp_path / "scores.json").read_text())["model"]["backend"]["backend"] == backend
    # The last task's figures, of the same clips as a stream, and drawn.
    extras = ["--mode", "stream", "--picture", str(tmp_path / "sheet.png"), "--picture-clips", "2"]
    result = run_avsbg(*command, *extras, "--json", tmp_path / "scores.json")
    assert result.code == 0, result.output
    np.testing.assert_allclose(_scores(tmp_path / "scores.json"), figures, atol=1e-4)
    assert json.loads((tmp_path / "scores.json").read_text())["model"]["backend"]["graph"] == "encode+decode"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (5 * 160, 2 * (160 + 16))
    rows = [
        measure_accuracy(Bundle.open(bundle), dataset, "onnxruntime", streamed=streamed, threads=1)
        for streamed in (False, True)
    ]
    assert list(rows[0]["f_score"].samples) == pytest.approx(figures[4:], abs=1e-4)
    assert "| `onnxruntime`, as a stream |" in accuracy_table(rows)
    assert accuracy_table(rows).count("the same to four digits, every clip") == 2


def test_averages_over_clips_and_over_batches(data):
    dataset = AvsBenchDataset(data, "ms3", "test")

    def noisy(sample):
        noise = torch.randn(sample.masks.shape, generator=torch.Generator().manual_seed(len(sample.clip.name)))
        return 2 * sample.masks - 1 + int(sample.clip.name[-1]) * noise

    counted = []
    result = evaluate(dataset, noisy, batch=2, advance=lambda: counted.append(1))
    assert len(counted) == len(result.clips) == 5
    assert result.per_clip.miou == pytest.approx(np.mean([clip.score.miou for clip in result.clips]))
    pairs = [evaluate(torch.utils.data.Subset(dataset, part), noisy, batch=2) for part in ([0, 1], [2, 3], [4])]
    assert result.per_batch.f_score == pytest.approx(np.mean([pair.per_batch.f_score for pair in pairs]))
    assert result.per_batch.miou != pytest.approx(result.per_clip.miou, abs=1e-9)  # the last batch is a single clip
    assert evaluate(dataset, noisy, batch=1).per_batch == result.per_clip


def test_frames_without_annotation_do_not_count(data):
    dataset = AvsBenchDataset(data, "s4", "train")

    def right_at_first(sample):
        assert len(sample.masks) == 1
        return torch.cat([20 * sample.masks - 10, torch.full((4, *sample.masks.shape[1:]), 9.0)])

    assert evaluate(dataset, right_at_first).per_clip.miou == pytest.approx(1.0)


class Recorder:
    """A backend that keeps what it is given."""

    def __init__(self, audio, size=32):
        clip = ClipRecord(frames=5, height=size, width=size, audio=audio)
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(clip=clip))
        self.given = {}

    def run(self, inputs, outputs):  # noqa: ARG002
        self.given = inputs
        return {"logits": np.zeros((1, 5, 32, 32), np.float32)}


def test_a_graph_is_given_the_form_of_sound_that_it_takes(data):
    sample = AvsBenchDataset(data, "ms3", "val")[0]
    for form, shape in (("waveform", (1, 80000)), ("log_mel", (1, 5, 1, 96, 64))):
        backend = Recorder(form)
        assert bundle_predictor(backend)(sample).shape == (5, 32, 32)
        assert set(backend.given) == {"frames", form}
        assert (backend.given[form].dtype, backend.given[form].shape) == (np.float32, shape)
    with pytest.raises(DatasetError, match="audio embeddings"):
        bundle_predictor(Recorder("audio_embedding"))(sample)
    with pytest.raises(DatasetError, match="5 frames of 32 x 32; the bundle takes 5 of 64 x 64"):
        bundle_predictor(Recorder("log_mel", size=64))(sample)


def test_a_checkpoint_is_scored_by_its_variant(data, tmp_path):
    variant = "avs-bg-without-audio"
    network = create_network(variant, encoder="pvt_v2_b0")
    save_checkpoint(network, tmp_path / "mute.safetensors")
    command = ["eval", str(tmp_path / "mute.safetensors"), "--data", str(data), "--task", "ms3", "--variant", variant]
    result = run_avsbg(*command, "--encoder", "pvt_v2_b0")
    assert result.code == 0, result.output
    assert "ms3 test, 5 clips, sound from wav" in result.output
    hearing = run_avsbg(*command[:-1], "avs-bg")
    assert isinstance(hearing.error, TrainingError)
    assert "--vggish" in str(hearing.error)
