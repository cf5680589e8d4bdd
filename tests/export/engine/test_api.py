"""Builds with `--backend tensorrt` through TensorRT's documented Python interface of 10.3, 10.13 and 11, recorded.

The graphs are real (a small AVS-BG), the builder is not (fake_tensorrt_builder): what is tested is which calls are
made, and what our code makes of the answers, in each version.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from avsbg.export.engine import api as api_module
from avsbg.export.engine import build as build_module
from avsbg.export.engine.api import import_tensorrt
from avsbg.export.engine.build import BuiltEngine, build_into_bundle
from avsbg.export.engine.request import BuildError, EngineRequest
from avsbg.runtime.backends.tensorrt import engine as engines
from avsbg.runtime.backends.tensorrt.engine import choose_engine, load_engine
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.device.gpu import CudaDriver
from avsbg.runtime.errors import BackendError
from fixtures.cli import run_avsbg
from fixtures.engines import DRIVER
from fixtures.fake_tensorrt_builder import WEAK_TYPING, Recording, fake_tensorrt

VERSIONS = ("10.3.0", "10.13.3", "11.0.0")
each_version = pytest.mark.parametrize("recording", VERSIONS, indirect=True)


@pytest.fixture
def recording(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recording:
    """An Orin with that TensorRT."""
    recorded = Recording(getattr(request, "param", VERSIONS[1]))
    module = fake_tensorrt(recorded.version, recorded)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", module)
    for where in (api_module, build_module, engines):
        monkeypatch.setattr(where, "read_cuda_driver", lambda: DRIVER)
    return recorded


@pytest.fixture
def bundle(small, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small.bundle.path, tmp_path / "bundle"))


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "libavsbg_tensorrt.so"
    path.write_bytes(b"a library")
    return path


def _build(path: Path, plugin: Path | None = None, **options: object) -> BuiltEngine:
    request = EngineRequest(
        **{  # type: ignore[arg-type]
            "backend": "tensorrt",
            "precision": "fp16",
            "operator": "plain" if plugin is None else "plugin",
            "clips": (1, 2, 4),
            **options,
        }
    )
    return build_into_bundle(path, request, report=lambda _: None, progress=lambda *_: None, plugin=plugin)


@each_version
def test_a_plugin_engine_in_fp16(recording: Recording, bundle: Path, plugin: Path) -> None:
    built = _build(bundle, plugin)
    # Strongly typed in 10, where it must be asked for; in 11 the flag has another place and is ignored.
    assert recording.network_flags == [2]
    assert not any(recording.flags.get(flag) for flag in WEAK_TYPING)
    assert recording.flags["TF32"] is False
    assert {name: shapes[1][0] for name, shapes in recording.profiles[0].items()} == {"frames": 2, "audio_embedding": 2}
    # The builder's registry and the runtime's, in which the engine is inspected.
    assert recording.libraries == [str(plugin), str(plugin)]
    record = built.record
    assert record.realised.source == "inspector"
    assert record.realised.differing == ()
    assert record.realised.products["fp16"] > 100
    assert record.versions["tensorrt"] == recording.version
    assert record.device.name == "Orin" and record.device.compute_capabilities == (87,)
    assert record.memory.activation == 4096 and record.memory.weights == 8192
    layers = json.loads((bundle / record.layers_file).read_text())
    assert any(layer["kind"] == "PLUGIN_V3" and "fp16" in layer["inputs"] for layer in layers)
    assert "--stronglyTyped" in record.commands["trtexec"]


@each_version
def test_a_default_build_takes_the_plugin(recording: Recording, bundle: Path, plugin: Path) -> None:
    arguments = ["build", bundle, "--backend", "tensorrt", "--precision", "fp16", "--plugin", plugin]
    result = run_avsbg(*arguments)
    assert result.code == 0, result.output
    opened = Bundle.open(bundle)
    (record,) = opened.manifest.engines.values()
    layers = json.loads(opened.file(record.layers_file).read_text())
    (layer,) = (layer for layer in layers if layer["kind"] == "PLUGIN_V3")  # of all stages, which it names
    assert layer["nodes"] == [f"network.correlation.{stage}/MeanCorrelation" for stage in range(4)]
    # TensorRT's own tools are given the same file, which lies in the bundle with the graph's weights.
    assert record.parsed_file == "clip.fp16.plugin.onnx"
    parsed = onnx.load(str(opened.file(record.parsed_file)), load_external_data=False)
    assert not parsed.functions and [node.domain for node in parsed.graph.node].count("trt.plugins") == 1
    assert len(onnx.load(str(bundle / "clip.fp16.onnx"), load_external_data=False).functions) == 1
    assert f"--onnx={record.parsed_file} " in record.commands["trtexec"]
    assert f"convert {record.parsed_file} " in record.commands["polygraphy"]


@pytest.mark.parametrize("recording", ["10.3.0"], indirect=True)
def test_a_function_body_in_place_of_the_plugin_fails_the_build(
    recording: Recording, bundle: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph handed over with its functions: TensorRT 10.3 takes them without a word."""
    monkeypatch.setattr(build_module, "write_plugin_graph", lambda *files: shutil.copyfile(*files) and {})
    with pytest.raises(BuildError, match=r"4 nodes for the plugin, but TensorRT made 0 plugin layers"):
        _build(bundle, plugin)
    assert not (bundle / "engines").exists()


def test_a_product_in_another_type_fails_the_build(recording: Recording, bundle: Path) -> None:
    model = onnx.load(str(bundle / "clip.plain.onnx"), load_external_data=False)
    node = next(node.name for node in model.graph.node if node.op_type == "Conv" and "neck" in node.name)
    recording.wrong = {node: onnx.TensorProto.FLOAT}
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(BuildError, match=rf"1 products are not computed in fp16: {node}: fp32"):
        _build(bundle)
    assert (bundle / "manifest.json").read_bytes() == before


def test_what_the_inspector_does_not_say_is_recorded_and_no_reason_to_refuse(
    recording: Recording, bundle: Path
) -> None:
    """A region that TensorRT compiles as a whole: one layer, whose inputs have several types and no weights."""
    recording.regions = 3
    built = _build(bundle)
    assert built.record.realised.differing == ()
    assert len(built.record.realised.unreported) > 3
    assert all(line.endswith(": fp16 and fp32") for line in built.record.realised.unreported)
    assert Bundle.open(bundle).manifest.engines[built.name].realised == built.record.realised


def test_a_streams_graphs(recording: Recording, bundle: Path, plugin: Path) -> None:
    encode = _build(bundle, graph="encode", precision="fp32", clips=(1, 1, 1))
    decode = _build(bundle, plugin, graph="decode", precision="fp32", clips=(1, 1, 1))
    assert (encode.record.graph, decode.record.graph) == ("encode", "decode")
    assert encode.name.startswith("encode.fp32.plain.tensorrt.sm87")
    assert recording.profiles[0].keys() == {f"{side}.{stage}" for side in ("fused", "partner") for stage in range(4)}
    assert encode.record.accuracy is None
    opened = Bundle.open(bundle)
    parsed = onnx.load(str(opened.file(str(decode.record.parsed_file))), load_external_data=False)
    (node,) = (node for node in parsed.graph.node if node.domain == "trt.plugins")
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert (node.op_type, len(node.input), attributes["frames"]) == ("MeanCorrelations", 8, 0)
    assert choose_engine(opened, "tensorrt", "encode") == encode.name
    assert choose_engine(opened, "tensorrt", "decode", operator="plugin") == decode.name
    with pytest.raises(
        BuildError, match=r"the graph encode of .* contains no operator of ours.*--implementation plain"
    ):
        _build(bundle, plugin, graph="encode", precision="fp32")
    with pytest.raises(BuildError, match=r"--graph clap does not exist.*clip, encode, decode"):
        _build(bundle, graph="clap")


@each_version
def test_flags_and_options(recording: Recording, bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    built = _build(
        bundle,
        precision="tf32",
        version_compatible=True,
        strip_weights=True,
        workspace_mb=64,
        aux_streams=0,
        timing_cache=cache,
    )
    assert built.record.options["max_aux_streams"] == 0 and built.name.endswith(".aux0")
    assert "--maxAuxStreams=0" in built.record.commands["trtexec"]
    assert built.record.parsed_file is None
    assert "--max-aux-streams 0" in built.record.commands["polygraphy"]
    assert [recording.flags[flag] for flag in ("TF32", "VERSION_COMPATIBLE", "STRIP_PLAN")] == [True] * 3
    assert recording.pools == {"WORKSPACE": 64 * 2**20}
    assert cache.read_bytes() == b"measured"
    assert built.record.options["workspace_bytes"] == 64 * 2**20
    recording.mismatch = True
    with pytest.raises(BuildError, match=r"timing cache .* was made on another device"):
        _build(bundle, precision="fp32", timing_cache=cache)
    cache.write_bytes(b"notes")
    with pytest.raises(BuildError, match=r"timing\.cache is no timing cache .*: Failed to deserialize"):
        _build(bundle, precision="fp32", timing_cache=cache)
    assert cache.read_bytes() == b"notes"


def test_what_the_builder_says_is_told(recording: Recording, bundle: Path) -> None:
    recording.fail = "Error Code 10: Could not find any implementation for node X."
    with pytest.raises(BuildError, match="cannot build the engine: Error Code 10"):
        _build(bundle, precision="fp32")


@each_version
def test_an_engine_is_loaded_by_the_version_that_built_it(
    recording: Recording, bundle: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = _build(bundle, plugin, precision="fp32")
    loaded = load_engine(Bundle.open(bundle), built.name, plugin=plugin)
    assert loaded.create_execution_context() is not None
    later = fake_tensorrt("11.9.0", Recording("11.9.0"))
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", later)
    with pytest.raises(
        BackendError, match=rf"built by tensorrt {recording.version}; installed is 11\.9\.0.*avsbg build"
    ):
        load_engine(Bundle.open(bundle), built.name, plugin=plugin)


@pytest.mark.parametrize(
    ("recording", "installed"),
    [("10.3.0", "10.13.3"), ("10.13.3", "11.0.0"), ("11.0.0", "11.0.0")],
    indirect=["recording"],
)
def test_a_version_compatible_engine_is_inspected_and_runs_on_later_versions(
    recording: Recording, bundle: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    built = _build(bundle, plugin, precision="fp32", version_compatible=True)
    assert recording.host_code_allowed == [True]
    other = _build(bundle, precision="fp32")
    assert recording.host_code_allowed == [True, False]  # only where the plan brings a runtime along
    later = Recording(installed)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake_tensorrt(installed, later))
    assert load_engine(Bundle.open(bundle), built.name, plugin=plugin).create_execution_context() is not None
    if installed != recording.version:
        with pytest.raises(BackendError, match=rf"built by tensorrt {recording.version}; installed is {installed}"):
            load_engine(Bundle.open(bundle), other.name)
    assert later.host_code_allowed == [True] and later.libraries == [str(plugin)]


@pytest.mark.parametrize(
    ("recording", "installed"), [("10.13.3", "10.3.0"), ("11.0.0", "10.13.3")], indirect=["recording"]
)
def test_a_version_compatible_engine_does_not_run_on_older_versions(
    recording: Recording, bundle: Path, monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    built = _build(bundle, precision="fp32", version_compatible=True)
    older = Recording(installed)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake_tensorrt(installed, older))
    with pytest.raises(BackendError, match=rf"installed is {installed}\. .*needs the same version or a later one"):
        load_engine(Bundle.open(bundle), built.name)
    assert older.host_code_allowed == []


def test_host_code_of_an_untrusted_engine_is_never_allowed(
    recording: Recording, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built = _build(bundle, precision="fp32", version_compatible=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "someone else's"))
    with pytest.raises(BackendError, match="was not built by this user on this machine"):
        load_engine(Bundle.open(bundle), built.name)
    assert recording.host_code_allowed == [True]  # while it was built
    assert load_engine(Bundle.open(bundle), built.name, trust=True) is not None


def test_tensorrt_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake_tensorrt("10.2.0", Recording("10.2.0")))
    with pytest.raises(BackendError, match=r"TensorRT 10\.2\.0 is too old"):
        import_tensorrt("tensorrt")


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake_tensorrt("10.13.3", Recording("10.13.3")))
    monkeypatch.setattr(api_module, "read_cuda_driver", lambda: CudaDriver(None, "there is no driver"))
    with pytest.raises(BuildError, match="builds only where there is a GPU, and there is no driver"):
        _build(bundle)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fake_lacks_what_the_version_lacks(version: str) -> None:
    module = fake_tensorrt(version, Recording(version))
    assert hasattr(module.BuilderFlag, "FP16") == (version < "11")
    assert hasattr(module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") == (version < "11")
    with pytest.raises(AttributeError):
        module.Builder(module.ILogger()).create_builder_config().max_workspace_size = 1
