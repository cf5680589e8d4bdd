"""A tiny bundle with the contract of a real one, made without torch: what is bright while it is loud sounds.

`logits = 8 * (brightness * loudness - 0.25)`, with the brightness of a pixel computed by a MeanCorrelation node against
a vector of thirds, and the loudness of a second as the largest absolute sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.parser

from avsbg.runtime.bundle import Bundle, write_bundle

FRAMES, HEIGHT, WIDTH = 5, 16, 24
SAMPLE_RATE = 16000

_MODEL = """
<ir_version: 10, opset_import: ["" : 20, "avsbg" : 1]>
tiny (uint8[clips, {frames}, {height}, {width}, 3] frames, float[clips, {audio}] {audio_name})
  => (float[clips, {frames}, {height}, {width}] logits, float[clips, {frames}, {height}, {width}] probability)
{{
  values = Cast<to = 1>(frames)
  white = Constant<value = float {{255.0}}>()
  scaled = Div(values, white)
  rows = Constant<value = int64[3] {{-1, {pixels}, 3}}>()
  flat = Reshape(scaled, rows)
  pads = Constant<value = int64[6] {{0, 0, 0, 0, 0, 5}}>()
  descriptors = Pad(flat, pads)
  zero = Constant<value = int64[1] {{0}}>()
  one = Constant<value = int64[1] {{1}}>()
  first = Slice(descriptors, zero, one, one)
  nothing = Sub(first, first)
  third = Constant<value = float {{0.33333333}}>()
  thirds = Add(nothing, third)
  bright, unused = avsbg.MeanCorrelation <plugin_namespace = "", plugin_version = "1"> (descriptors, thirds)
  map_shape = Constant<value = int64[4] {{-1, {frames}, {height}, {width}}}>()
  brightness = Reshape(bright, map_shape)
  seconds = Constant<value = int64[3] {{-1, {frames}, {per_second}}}>()
  samples = Reshape({audio_name}, seconds)
  magnitude = Abs(samples)
  last = Constant<value = int64[1] {{-1}}>()
  loud = ReduceMax(magnitude, last)
  loudness = Unsqueeze(loud, last)
  product = Mul(brightness, loudness)
  quarter = Constant<value = float {{0.25}}>()
  centred = Sub(product, quarter)
  eight = Constant<value = float {{8.0}}>()
  logits = Mul(centred, eight)
  probability = Sigmoid(logits)
}}
<domain: "avsbg", opset_import: ["" : 20]>
MeanCorrelation <plugin_namespace, plugin_version> (a, b) => (mean_a, mean_b)
{{
  left = Cast<to = 1>(a)
  right = Cast<to = 1>(b)
  transposed = Transpose<perm = [0, 2, 1]>(right)
  volume = MatMul(left, transposed)
  positive = Relu(volume)
  rows = Constant<value = int64[1] {{1}}>()
  columns = Constant<value = int64[1] {{2}}>()
  mean_a = ReduceMean<keepdims = 0>(positive, columns)
  mean_b = ReduceMean<keepdims = 0>(positive, rows)
}}
"""


def expected(frames: np.ndarray, waveform: np.ndarray) -> dict[str, np.ndarray]:
    """The tiny network in numpy: `frames` uint8 `[B, T, H, W, 3]`, `waveform` float32 `[B, T * 16000]`."""
    brightness = frames.astype(np.float64).mean(axis=-1) / 255
    loudness = np.abs(waveform.reshape(*frames.shape[:2], -1)).max(axis=-1)
    logits = 8 * (brightness * loudness[:, :, None, None] - 0.25)
    return {"logits": logits.astype(np.float32), "probability": (1 / (1 + np.exp(-logits))).astype(np.float32)}


def inputs(clips: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "frames": random.integers(0, 256, (clips, FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "waveform": random.uniform(-1, 1, (clips, FRAMES * SAMPLE_RATE)).astype(np.float32),
    }


def manifest_fields(graphs: dict[str, Any], audio: str = "waveform") -> dict[str, Any]:
    """What `write_manifest` takes, for a bundle of the tiny network."""
    return {
        "name": "tiny",
        "variant": {"network": "tiny", "audio": True},
        "weights": {"seed": 0},
        "clip": {"frames": FRAMES, "height": HEIGHT, "width": WIDTH, "audio": audio},
        "graphs": graphs,
        "parameters": {"published": 2, "inference": 1},
        "versions": {"onnx": onnx.__version__},
    }


def graph_fields(model: onnx.ModelProto, file: str, operator: str) -> dict[str, Any]:
    """A graph's record, read from the model."""

    def describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        return {"name": value.name, "dtype": dtype, "shape": [d.dim_param or d.dim_value for d in tensor.shape.dim]}

    nodes = [f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in model.graph.node]
    return {
        "file": file,
        "operator": operator,
        "opset": 20,
        "ir_version": model.ir_version,
        "inputs": [describe(value) for value in model.graph.input],
        "outputs": [describe(value) for value in model.graph.output],
        "node_count": len(nodes),
        "operators": {name: nodes.count(name) for name in sorted(set(nodes))},
    }


def make_bundle(path: Path, *, audio: str = "waveform", vectors: bool = True) -> Bundle:
    """Write the tiny bundle; with `audio="log_mel"` or `"audio_embedding"` loudness is that of those values."""
    per_second = {"waveform": SAMPLE_RATE, "log_mel": 96 * 64, "audio_embedding": 128}[audio]
    width = {
        "waveform": f"{FRAMES * SAMPLE_RATE}",
        "log_mel": f"{FRAMES}, 1, 96, 64",
        "audio_embedding": f"{FRAMES}, 128",
    }
    sizes = {"frames": FRAMES, "height": HEIGHT, "width": WIDTH, "pixels": HEIGHT * WIDTH}
    text = _MODEL.format(audio=width[audio], audio_name=audio, per_second=per_second, **sizes)
    custom = onnx.parser.parse_model(text)
    plain = onnx.inliner.inline_local_functions(custom)
    with write_bundle(path) as writer:
        graphs = {}
        for name, model, operator in (("clip", custom, "custom"), ("clip.plain", plain, "plain")):
            onnx.checker.check_model(model)
            onnx.save(model, writer.directory / f"{name}.onnx")
            graphs[name] = graph_fields(model, f"{name}.onnx", operator)
        if vectors and audio == "waveform":
            for clips in (1, 3):
                arrays = inputs(clips, seed=clips)
                stages = {"brightness": arrays["frames"].mean(axis=-1, dtype=np.float32) / 255}
                writer.add_vectors(
                    clips=clips, seed=clips, inputs=arrays, outputs=expected(**arrays), intermediates=stages
                )
        writer.write_manifest(**manifest_fields(graphs, audio))
    return Bundle.open(path)
