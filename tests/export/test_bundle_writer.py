"""Exported bundles: the same numbers as PyTorch, strictly valid ONNX, no dead weight, nothing of the machine."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from avsbg.export import bundle_writer as bundle_module
from avsbg.export.bundle_writer import export_bundle, variant_name
from avsbg.export.merges import MERGED
from avsbg.export.operators import PLUGIN_ATTRIBUTES, register_schemas
from avsbg.export.shape import ClipShape, ExportError
from avsbg.export.torch_backend import TorchBackend
from avsbg.export.vectors import make_clips
from avsbg.export.weights import from_seed, read_graph_weights
from avsbg.model import VARIANTS, count_parameters, named_variant
from avsbg.runtime.bundle.manifest import WeightsRecord
from avsbg.runtime.errors import BackendError, BundleError
from fixtures import ROOT

OURS = {"MeanCorrelation", "CorrelationVolume"}


def graphs(exported) -> dict[str, onnx.ModelProto]:
    bundle = exported.bundle
    return {
        name: onnx.load(str(bundle.file(record.file)), load_external_data=False)
        for name, record in bundle.manifest.graphs.items()
    }


def test_any_number_of_clips_gives_pytorchs_numbers(exported):
    bundle, module = exported.bundle, exported.module
    sessions = dict(bundle_module._checked_forms(bundle))
    assert set(" and ".join(sessions).split(" and ")) == set(bundle.manifest.graphs)
    with contextlib.ExitStack() as stack:
        for backend in sessions.values():
            stack.enter_context(backend)
        for clips in (1, 2, 3):
            inputs = make_clips(module.audio, bundle.manifest.clip, clips, seed=7)
            with torch.inference_mode():
                logits, probability = (out.numpy() for out in module(*map(torch.from_numpy, inputs.values())))
            assert logits.std() > 0.1, "constant logits would agree with anything"
            for name, backend in sessions.items():
                outputs = backend.run(inputs)
                np.testing.assert_allclose(outputs["logits"], logits, rtol=0, atol=1e-4, err_msg=name)
                np.testing.assert_allclose(outputs["probability"], probability, rtol=0, atol=1e-5, err_msg=name)


def test_vectors_are_pytorchs_and_cover_the_stages(exported):
    one, three = exported.bundle.vectors()
    assert (one.record.clips, three.record.clips) == (1, 3)
    with torch.inference_mode():
        logits = exported.module(*map(torch.from_numpy, three.inputs.values()))[0].numpy()
    np.testing.assert_allclose(three.outputs["logits"], logits, rtol=0, atol=1e-5)
    assert {"encoder.3", "neck.3", "decoder.0"} <= set(three.intermediates)
    assert all(np.isfinite(array).all() for array in three.intermediates.values())
    if exported.module.network.variant.motion:
        assert {f"mean_correlation.{stage}" for stage in range(4)} <= set(three.intermediates)


def test_graphs_pass_the_strictest_checks(exported):
    register_schemas()
    for name, model in graphs(exported).items():
        onnx.checker.check_model(str(exported.bundle.file(exported.bundle.graph(name).file)), full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        known = {value.name for value in inferred.graph.value_info} | {value.name for value in inferred.graph.output}
        assert all(output in known for node in inferred.graph.node for output in node.output if output)


def test_the_operator_is_a_node_with_a_body_or_absent(exported):
    for name, model in graphs(exported).items():
        record = exported.bundle.graph(name)
        ours = [node for node in model.graph.node if node.domain == "avsbg"]
        if record.operator == "plain":
            assert not ours
            assert not model.functions
            assert [opset.domain for opset in model.opset_import] == [""]
            continue
        assert len(ours) >= 4
        assert {node.op_type for node in ours} <= OURS
        for node in ours:
            attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            assert {key: attributes[key].decode() for key in PLUGIN_ATTRIBUTES} == PLUGIN_ATTRIBUTES
        standard = next(opset.version for opset in model.opset_import if opset.domain == "")
        for function in model.functions:
            assert [opset.version for opset in function.opset_import if opset.domain == ""] == [standard]
    variant = exported.module.network.variant
    names = {"clip"} if variant.network == "avsbench" else {"clip", "encode", "decode"}
    assert set(graphs(exported)) == names | ({"clip.plain", "decode.plain"} if variant.motion else set())


def test_a_graph_holds_the_parameters_that_inference_needs_and_nothing_else(exported):
    module = exported.module
    needed = count_parameters(module.network).inference
    if module.audio_encoder is not None:
        needed += sum(parameter.numel() for parameter in module.audio_encoder.parameters())
    parameters = dict(module.named_parameters())
    known = set(parameters) | {name for name, _ in module.named_buffers()}
    held = {}
    for graph, model in graphs(exported).items():
        used = {name for node in model.graph.node for name in node.input}
        # A merged weight stands for parameters that lie beside the graph.
        merged = {name for merge in exported.bundle.graph(graph).merges for name in merge.parameters}
        held[graph] = sum(parameters[name].numel() for name in merged)
        for initialiser in model.graph.initializer:
            assert initialiser.name in used
            name = initialiser.name.removesuffix(".T")
            if name.removesuffix(MERGED) in merged:
                assert name not in parameters
            elif name in parameters:
                held[graph] += prod(initialiser.dims)
            else:
                assert name in known or (name.startswith("constant.") and prod(initialiser.dims) < 10)
    assert {count for graph, count in held.items() if graph.startswith("clip")} == {needed}
    if "encode" in held:  # between them, the two graphs of a stream hold each parameter once
        assert {held["encode"] + count for graph, count in held.items() if graph.startswith("decode")} == {needed}
    assert exported.bundle.manifest.parameters.inference == count_parameters(module.network).inference


def test_weights_keep_their_names_and_values(exported):
    state = exported.module.state_dict()
    weights = read_graph_weights(exported.bundle)
    shared = set(state) & set(weights)
    assert len(shared) > 100
    assert {"network.head.0.weight", "network.head.4.bias"} <= shared
    assert all(torch.equal(state[name], weights[name]) for name in shared)


def test_nodes_are_named_after_modules(exported):
    for graph, model in graphs(exported).items():
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        assert ("network.head.0/Conv" in names) == (graph != "encode")
        if graph in ("clip.plain", "decode.plain"):
            assert any(name.startswith("network.correlation.2/") and "MatMul" in name for name in names)


def test_nothing_of_the_machine_is_in_a_bundle(exported):
    traces = [str(Path.cwd()), str(exported.bundle.path.parent), "site-packages", f"/{getpass.getuser()}/", 'File "']
    for file in exported.bundle.path.rglob("*"):
        if file.is_file() and file.suffix != ".bin":
            content = file.read_bytes()
            assert not [trace for trace in traces if trace.encode() in content], file


def test_all_graphs_share_one_file_of_weights(exported):
    files = {file.name for file in exported.bundle.path.iterdir() if file.is_file()}
    assert files == {record.file for record in exported.bundle.manifest.graphs.values()} | {
        "weights.bin",
        "manifest.json",
        *({"unmerged.safetensors"} if exported.module.network.variant.network == "avs-bg" else ()),
    }
    for model in graphs(exported).values():
        locations = {
            entry.value
            for initialiser in model.graph.initializer
            for entry in initialiser.external_data
            if entry.key == "location"
        }
        assert locations == {"weights.bin"}
        assert model.ByteSize() < 1_000_000


def test_the_manifest_says_what_is_there(exported):
    manifest, module = exported.bundle.manifest, exported.module
    assert manifest.variant == module.network.variant.to_dict()
    assert manifest.weights == WeightsRecord(seed=1)
    assert manifest.clip.audio == module.audio.value
    for name, model in graphs(exported).items():
        record = manifest.graphs[name]
        assert record.node_count == len(model.graph.node) == sum(record.operators.values())
        streams = not name.startswith("clip")
        assert all(
            tensor.shape[0] == ("streams" if streams else "clips") for tensor in (*record.inputs, *record.outputs)
        )
        if not name.startswith("decode"):
            assert [tensor.name for tensor in record.inputs] == ["frames", module.audio.value]
            assert record.inputs[0].dtype == "uint8"
        assert record.node_count < int({p.key: p.value for p in model.metadata_props}["avsbg.nodes_exported"])


def test_the_torch_backend_repeats_the_vectors(exported):
    with TorchBackend(exported.bundle) as backend:
        for vectors in exported.bundle.vectors():
            outputs = backend.run(vectors.inputs)
            for name, array in vectors.outputs.items():
                np.testing.assert_allclose(outputs[name], array, rtol=0, atol=1e-5)
        assert backend.describe()["operator"] == exported.module.network.variant.form


def test_both_forms_of_the_network_agree(export_once):
    published = export_once("avs-bg as published, embedding").bundle
    vectors = next(published.vectors())
    with TorchBackend(published, operator="efficient") as backend:
        assert backend.describe()["operator"] == "efficient"
        outputs = backend.run(vectors.inputs, ["logits"])
    np.testing.assert_allclose(outputs["logits"], vectors.outputs["logits"], rtol=0, atol=1e-4)


def test_the_torch_backend_refuses_what_it_cannot_do(smallest):
    with pytest.raises(BackendError, match=r"materialised.*native, efficient, published"):
        TorchBackend(smallest.bundle, operator="materialised")
    with pytest.raises(BackendError, match="at least 1, not 0"):
        TorchBackend(smallest.bundle, threads=0)


def test_a_graph_with_other_numbers_than_pytorchs_is_not_kept(smallest, tmp_path, monkeypatch):
    """Graphs of one seed beside the vectors of another: the check before publishing must notice."""

    def stale(graph, shape, directory, report, **options):
        for record in smallest.bundle.manifest.graphs.values():
            for name in (record.file, *record.external_data, *filter(None, [record.unmerged])):
                shutil.copyfile(smallest.bundle.file(name), directory / name)
        return smallest.bundle.manifest.graphs

    monkeypatch.setattr(bundle_module, "export_graphs", stale)
    other, weights = from_seed(smallest.module.network.variant, smallest.module.audio, seed=2)
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_bundle(other, tmp_path / "new", weights=weights, shape=ClipShape(2, 32, 32))
    assert not list(tmp_path.iterdir())


def test_an_existing_path_is_refused_before_any_work(smallest):
    with pytest.raises(BundleError, match="exists already"):
        export_bundle(smallest.module, smallest.bundle.path, weights=WeightsRecord(seed=1))


def test_variants_are_named_whatever_the_encoder():
    for name in VARIANTS:
        assert variant_name(named_variant(name)) == name.removesuffix("-resnet50")
    assert variant_name(named_variant("avs-bg-without-audio", motion=False)) == "avs-bg"


def test_the_documented_onnxruntime_example_runs_without_this_project(smallest, tmp_path):
    """The Python of docs/export.md, in an interpreter that refuses to import avsbg and torch."""
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    block = text.split("**ONNX Runtime:**")[1].split("**TensorRT**")[0]
    code = [line[4:] for line in block.splitlines() if line.startswith("    ")]
    assert len(code) == 5
    (tmp_path / "avs-bg.bundle").symlink_to(smallest.bundle.path)
    refuse = "import sys; sys.modules.update(avsbg=None, torch=None, onnx=None)"
    script = "\n".join([refuse, *code, "assert numpy.abs(logits - vectors['outputs.logits']).max() < 1e-3"])
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=300)
