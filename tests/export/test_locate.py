"""`verify --locate`: one weight or one node of a copied graph is corrupted, and exactly that tensor is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

from avsbg.export.locate import LocateError, locate, show
from avsbg.export.precision.graphs import add_graph
from avsbg.runtime.bundle import Bundle, sha256, update_bundle
from avsbg.runtime.bundle.manifest import MANIFEST

Change = Callable[[onnx.ModelProto], str]


def _rewrite(path: Path, file: str, change: Change) -> tuple[Bundle, str]:
    """Change a graph of the bundle at `path`, list it as it now is, and return what `change` says."""
    model = onnx.load(str(path / file), load_external_data=False)
    changed = change(model)
    onnx.save(model, str(path / file))
    document = json.loads((path / MANIFEST).read_text())
    document["files"][file] = {"sha256": sha256(path / file), "bytes": (path / file).stat().st_size}
    (path / MANIFEST).write_text(json.dumps(document))
    return Bundle.open(path), changed


def _weight_of(model: onnx.ModelProto, folder: Path, scope: str) -> str:
    """Add to one value of the weight of the first convolution in a module; returns the convolution's output."""
    node = next(node for node in model.graph.node if node.op_type == "Conv" and node.name.startswith(scope))
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    weight = onnx.numpy_helper.to_array(stored, base_dir=str(folder)).copy()
    weight.reshape(weight.shape[0], -1)[0] += 3 * np.abs(weight).max()
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "corrupted"))
    node.input[1] = "corrupted"
    return str(node.output[0])


@pytest.fixture
def copy(small, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small.bundle.path, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("scope", "stage"), [("network.encoder.network.stages.1", "encoder.1"), ("network.fusion.1", "fusion_gate.1")]
)
def test_a_corrupted_weight_is_found(copy: Path, scope: str, stage: str) -> None:
    bundle, tensor = _rewrite(copy, "clip.plain.onnx", lambda model: _weight_of(model, copy, scope))
    found = locate(bundle, "clip.plain")
    assert found.reference == "clip"
    assert found.first_tensor is not None
    assert found.first_tensor.name == tensor and found.first_tensor.operator == "Conv"
    assert found.first_tensor.node.startswith(scope)
    assert found.first_stage == stage
    assert found.not_recognised == ()


def test_a_corrupted_node_is_found(copy: Path) -> None:
    def change(model: onnx.ModelProto) -> str:
        node = next(
            n for n in model.graph.node if n.op_type == "Sigmoid" and n.name.startswith("network.correlation.2")
        )
        node.op_type = "Tanh"
        return str(node.output[0])

    bundle, tensor = _rewrite(copy, "clip.plain.onnx", change)
    found = locate(bundle, "clip.plain")
    assert found.first_stage == "correlation_attention.2"
    assert found.first_tensor is not None
    assert (found.first_tensor.name, found.first_tensor.operator) == (tensor, "Tanh")
    console = Console(record=True, width=160)
    console.print(show("onnxruntime:plain", found))
    text = console.export_text()
    assert f"the first tensor that differs (stage correlation_attention.2) is {tensor}" in text
    assert "█" in text


def test_in_a_lower_precision(export_once, tmp_path: Path) -> None:
    """With the front end and VGGish in the graph."""
    copy = Path(shutil.copytree(export_once("avs-bg, waveform").bundle.path, tmp_path / "copy"))
    with update_bundle(Bundle.open(copy)) as update:
        add_graph(update, "clip.plain", "fp16")
    clean = locate(Bundle.open(copy), "clip.plain.fp16")
    assert clean.first_stage is None and clean.first_tensor is None
    assert len(clean.stages) > 25 and all(stage.passed for stage in clean.stages)
    bundle, tensor = _rewrite(copy, "clip.plain.fp16.onnx", lambda model: _weight_of(model, copy, "network.fusion.2"))
    found = locate(bundle, "clip.plain.fp16")
    assert found.reference == "clip.plain" and found.first_stage == "fusion_gate.2"
    assert found.first_tensor is not None and found.first_tensor.name == tensor


def test_a_weight_that_all_graphs_share_leaves_the_stage(copy: Path) -> None:
    for file in ("clip.onnx", "clip.plain.onnx"):
        bundle, _ = _rewrite(copy, file, lambda model: _weight_of(model, copy, "network.neck.3"))
    found = locate(bundle, "clip.plain")
    assert found.reference is None and found.first_tensor is None
    assert found.first_stage == "neck.3"


def test_vectors_without_stages(bundle_copy: Path) -> None:
    document = json.loads((bundle_copy / MANIFEST).read_text())
    for record in document["vectors"]:
        record["intermediates"] = []
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(LocateError, match="no intermediate stages"):
        locate(Bundle.open(bundle_copy), "clip.plain")
