"""The graphs of a stream, built by TensorRT for RTX: it parses them, and computes them as asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install 'avsbg[rtx]'")

from avsbg.export.engine.build import build_into_bundle
from avsbg.export.engine.request import EngineRequest
from avsbg.export.precision.graphs import add_graph
from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle, update_bundle
from avsbg.runtime.streaming.frame_pair import StreamedClip, is_feature


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("graph", ["encode", "decode"])
def test_a_streams_graph_is_built(export_once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    bundle = Path(shutil.copytree(export_once("avs-bg, waveform").bundle.path, tmp_path / "bundle"))
    request = EngineRequest("tensorrt-rtx", "fp16", "plain", (1, 1, 1), (86,), graph=graph)
    built = build_into_bundle(bundle, request, report=lambda _: None, progress=lambda *_: None)
    assert built.record.graph == ("encode.fp16" if graph == "encode" else "decode.plain.fp16")
    assert built.record.realised.products["fp16"] > 10
    assert built.record.realised.differing == ()


@pytest.mark.parametrize("decode", ["decode", "decode.plain"])
def test_features_pass_between_the_graphs_in_their_precision(small, tmp_path: Path, decode: str) -> None:
    path = Path(shutil.copytree(small.bundle.path, tmp_path / "bundle"))
    with update_bundle(Bundle.open(path)) as update:
        for source in ("encode", decode):
            add_graph(update, source, "fp16")
    bundle = Bundle.open(path)
    made, taken = bundle.graph("encode.fp16").outputs, bundle.graph(f"{decode}.fp16").inputs
    assert all(is_feature(tensor.name) and tensor.dtype == "float16" for tensor in (*made, *taken))
    assert {tensor.dtype for tensor in bundle.graph(f"{decode}.fp16").outputs} == {"float32"}
    graphs = (create("onnxruntime", bundle, graph=graph) for graph in ("encode.fp16", f"{decode}.fp16"))
    with StreamedClip(*graphs) as streamed:
        for vectors in bundle.vectors():
            probability = streamed.run(vectors.inputs)["probability"]
            assert np.mean((probability > 0.5) != (vectors.outputs["probability"] > 0.5)) < 0.01
