"""A network of 71 classes as a bundle: outputs, labels, scores, a stream of single frames, sampling in float32."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from avsbg.export.bundle_writer import export_bundle
from avsbg.export.graphs import AudioForm
from avsbg.export.precision.graphs import convert_bundle
from avsbg.export.shape import ClipShape
from avsbg.export.vectors import make_clips
from avsbg.export.weights import from_seed
from avsbg.model import named_variant
from avsbg.model.avss import LABELS
from avsbg.model.training.avss_data import AvssDataset
from avsbg.model.training.evaluation import evaluate_classes
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.streaming.frame_pair import StreamedClip
from avsbg.runtime.verify.verify import verify_backend
from fixtures.avss import write_avss
from fixtures.cli import run_avsbg
from fixtures.degenerate import compare_with_pytorch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    variant = named_variant("avsegformer", encoder="pvt_v2_b0", classes=71)
    module, weights = from_seed(variant, AudioForm.LOG_MEL, seed=1, audio_encoder="compact")
    path = tmp_path_factory.mktemp("classes") / "bundle"
    export_bundle(module, path, weights=weights, shape=ClipShape(1, 64, 96, min_frames=1), stream=True)
    return Bundle.open(path), module


def test_outputs_are_pytorchs_and_labels_are_avss(exported):
    bundle, module = exported
    assert bundle.manifest.labels == LABELS
    shapes = {tensor.name: tensor.shape for tensor in bundle.graph("clip").outputs}
    assert shapes == {
        "logits": ("clips", 1, 71, 64, 96),
        "probability": ("clips", 1, 64, 96),
        "classes": ("clips", 1, 64, 96),
        "class_probability": ("clips", 1, 71, 64, 96),
    }
    inputs = make_clips(module.audio, bundle.manifest.clip, 2, seed=3, record=module.network.record)
    with torch.inference_mode():
        expected = module(*map(torch.from_numpy, inputs.values()))
    with OnnxRuntimeBackend(bundle, "clip") as backend:
        found = backend.run(inputs)
    for name, values in zip(module.outputs, expected, strict=True):
        if name != "classes":
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=4e-4, err_msg=name)
    assert (found["classes"] != expected[2].numpy()).mean() < 1e-3
    assert len(np.unique(found["classes"])) > 5
    np.testing.assert_allclose(found["class_probability"].sum(axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(1 - found["class_probability"][:, :, 0], found["probability"], atol=1e-5)


def test_silence_and_black_frames(exported):
    bundle, module = exported
    frames, sound = make_clips(module.audio, bundle.manifest.clip, 1, seed=4, record=module.network.record).values()
    compare_with_pytorch(bundle.path / bundle.graph("clip").file, module, frames, "log_mel", sound)


def test_a_stream_of_single_frames_is_the_clip(exported):
    bundle, _ = exported
    streamed = StreamedClip(OnnxRuntimeBackend(bundle, "encode"), OnnxRuntimeBackend(bundle, "decode"))
    with streamed as backend:
        assert verify_backend(backend, bundle.vectors()).passed


def test_sampling_stays_in_float32(exported):
    bundle, _ = exported
    converted = convert_bundle(bundle.path, "fp16", progress=lambda *_: None)
    accuracy = converted.graphs["clip.fp16"].accuracy
    assert accuracy is not None and accuracy.miou > 0.9
    model = onnx.load(str(bundle.path / converted.graphs["clip.fp16"].file), load_external_data=False)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    sampling = [node for node in model.graph.node if node.op_type == "GridSample"]
    assert len(sampling) == 6 * 3
    assert {types[name] for node in sampling for name in node.input} == {onnx.TensorProto.FLOAT}
    assert any(types.get(name) == onnx.TensorProto.FLOAT16 for node in model.graph.node for name in node.input)


def test_a_bundle_is_scored_by_class(exported, tmp_path):
    bundle, module = exported
    data = write_avss(tmp_path / "avss")
    outcome = run_avsbg("eval", bundle.path, "--data", data, "--task", "avss", "--json", tmp_path / "scores.json")
    assert outcome.code == 0, outcome.output
    found = json.loads((tmp_path / "scores.json").read_text())
    dataset = AvssDataset(data, "test", height=64, width=96)

    @torch.inference_mode()
    def predict(sample):
        return module(sample.frames[:, None], sample.log_mel[:, None])[0][:, 0]

    expected = evaluate_classes(dataset, predict).published
    assert [row["name"] for row in found["classes"]] == list(LABELS)
    np.testing.assert_allclose([row["iou"] for row in found["classes"]], expected.iou, atol=2e-3)
    assert found["published"]["miou"] == pytest.approx(expected.mean.miou, abs=1e-3)
    assert "background" in outcome.output and "woman" in outcome.output
    assert len(found["clips"]) == 3
