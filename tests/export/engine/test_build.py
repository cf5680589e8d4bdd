"""Engines of a small AVS-BG, built by TensorRT for RTX on a machine that needs no GPU for that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install 'avsbg[rtx]'")

from avsbg.export.editor import PrecisionError
from avsbg.export.engine import build as build_module
from avsbg.export.engine.build import BuiltEngine, build_into_bundle
from avsbg.export.engine.request import BuildError, EngineRequest
from avsbg.export.precision.graphs import add_graph, convert_bundle
from avsbg.export.precision.rules import Choice, Rule
from avsbg.native_library import NativeLibraryError, native_library
from avsbg.runtime.bundle import Bundle, sha256, update_bundle
from avsbg.runtime.bundle.manifest import MANIFEST

pytestmark = [pytest.mark.engine, pytest.mark.slow]

CLIPS = (1, 2, 4)


@pytest.fixture(scope="module", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The list of engines that this user built is not the tests' business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def bundle(quantized_twice: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to change."""
    return Path(shutil.copytree(quantized_twice, tmp_path / "bundle"))


def _build(
    path: Path, precision: str, operator: str = "plugin", request: dict[str, Any] | None = None, **options: object
) -> BuiltEngine:
    if operator == "plugin":
        try:
            native_library("tensorrt")
        except NativeLibraryError as error:
            pytest.skip(str(error))
    capability = 89 if precision == "fp8" else 86
    fields = {"clips": CLIPS, "compute_capabilities": (capability,), **(request or {})}
    asked = EngineRequest("tensorrt-rtx", precision, operator, **fields)  # type: ignore[arg-type]
    phases: list[tuple[str, int, int]] = []
    built = build_into_bundle(
        path,
        asked,
        report=lambda _: None,
        progress=lambda *step: phases.append(step),
        **options,  # type: ignore[arg-type]
    )
    assert any(done == total > 0 for _, done, total in phases), "the builder reported no progress"
    return built


@pytest.fixture(scope="module")
def built(quantized_twice: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, BuiltEngine]]:
    """A bundle with a plugin and a plain engine each in float32, float16 and int8, and plugin engines in fp8.

    In int8 and fp8 there is also a plugin engine whose rest is float16.
    """
    path = Path(shutil.copytree(quantized_twice, tmp_path_factory.mktemp("built") / "bundle"))
    engines = {precision: _build(path, precision) for precision in ("fp32", "fp16", "int8", "fp8")}
    for precision in ("int8", "fp8"):
        rest = {"rest": "fp16", "compute_capabilities": (89,)}
        engines[f"{precision} rest"] = _build(path, precision, request=rest)
    engines |= {f"{precision} plain": _build(path, precision, "plain") for precision in ("fp32", "fp16", "int8")}
    return Bundle.open(path), engines


def test_every_product_has_the_precision_asked_for(built: tuple[Bundle, dict[str, BuiltEngine]]) -> None:
    bundle, engines = built
    convolutions_and_products = sum(bundle.graph("clip").operators[name] for name in ("Conv", "MatMul"))
    for key, precision in (("fp32", "fp32"), ("fp16", "fp16")):
        realised = engines[key].record.realised
        assert realised.products == {precision: convolutions_and_products + 4}
        assert realised.differing == realised.unreported == ()


def test_what_has_a_range_is_quantised_and_nothing_else(built: tuple[Bundle, dict[str, BuiltEngine]]) -> None:
    bundle, engines = built
    for key, precision in (("int8", "int8"), ("int8 plain", "int8"), ("fp8", "fp8")):
        record = bundle.manifest.quantisations[precision]
        assert record.ranges
        realised = engines[key].record.realised
        assert realised.products[precision] == len(record.ranges) - len(record.left_out)
        assert set(realised.products) == {precision, "fp32"}
        assert realised.differing == realised.unreported == ()


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_the_rest_of_a_quantised_engine_is_float16(
    built: tuple[Bundle, dict[str, BuiltEngine]], precision: str
) -> None:
    """No product is left in float32 on the ordinary cores: attention, and the operator, are among them."""
    bundle, engines = built
    calibration, record = bundle.manifest.quantisations[precision], engines[f"{precision} rest"].record
    assert (record.precision, record.rest, record.graph) == (precision, "fp16", f"clip.rest-fp16.{precision}")
    quantised = len(calibration.ranges) - len(calibration.left_out)
    products = sum(bundle.graph("clip").operators[name] for name in ("Conv", "MatMul")) + 4
    assert record.realised.products == {precision: quantised, "fp16": products - quantised}
    assert record.realised.differing == record.realised.unreported == ()
    layers = json.loads(bundle.file(record.layers_file).read_text())
    plugins = [layer for layer in layers if layer["kind"] == "custom_layer"]
    assert [layer["inputs"] for layer in plugins] == [["fp16"] * 4]  # one node has the maps of all stages
    assert record.accuracy is not None and record.accuracy.passed
    # The weights that are not quantised take half the bytes.
    assert 0 < (record.memory.weights or 0) < (engines[precision].record.memory.weights or 0)
    graph = bundle.graph(record.graph)
    assert (graph.precision, graph.rest) == (precision, "fp16")


def test_engines_and_the_graphs_they_come_from_are_in_the_manifest(
    built: tuple[Bundle, dict[str, BuiltEngine]],
) -> None:
    bundle, engines = built
    assert set(bundle.manifest.engines) == {engine.name for engine in engines.values()}
    for engine in engines.values():
        record = bundle.manifest.engines[engine.name]
        assert record == engine.record
        assert record.graph_sha256 == sha256(bundle.file(bundle.graph(record.graph).file))
        assert (
            record.device.compute_capabilities == (89 if record.rest or record.precision == "fp8" else 86,)
            and record.device.name is None
        )
        assert record.profile["frames"].largest == (4, 2, 64, 64, 3)
        assert record.profile["audio_embedding"].optimal == (2, 2, 128)
        assert record.options["TF32"] is False
        layers = json.loads(bundle.file(record.layers_file).read_text())
        assert len(layers) == record.realised.layers
    assert engines["fp16"].record.plugin is not None
    assert engines["fp16"].record.plugin.sha256 == sha256(native_library("tensorrt").path)
    assert engines["fp16 plain"].record.plugin is None


def test_the_engine_holds_plugin_layers_only_where_asked(built: tuple[Bundle, dict[str, BuiltEngine]]) -> None:
    bundle, engines = built
    for key, count in (("fp32", 1), ("fp16", 1), ("int8", 1), ("fp16 plain", 0), ("int8 plain", 0)):
        layers = json.loads(bundle.file(engines[key].record.layers_file).read_text())
        assert sum(layer["kind"] == "custom_layer" for layer in layers) == count, key


def test_without_further_streams_branches_share_their_memory(bundle: Path) -> None:
    memory, waits = [], []
    for streams in (None, 0):
        record = _build(bundle, "fp32", "plain", {"clips": (1, 1, 1), "aux_streams": streams}).record
        layers = json.loads((bundle / record.layers_file).read_text())
        memory.append(record.memory.activation or 0)
        waits.append(sum(layer["kind"] == "wait" for layer in layers))
        assert record.options.get("max_aux_streams") == streams
    assert waits[0] > 0 == waits[1]
    assert 0 < memory[1] < memory[0]


def test_float16_halves_the_weights_and_stays_within_its_gate(built: tuple[Bundle, dict[str, BuiltEngine]]) -> None:
    _, engines = built
    full, half = engines["fp32"].record, engines["fp16"].record
    assert full.memory.weights is not None and half.memory.weights is not None
    assert half.memory.weights < 0.55 * full.memory.weights
    assert half.accuracy is not None and half.accuracy.passed
    assert 0 < half.accuracy.largest_difference < 0.05


def test_int8_quarters_most_weights_and_keeps_the_accuracy_that_convert_measured(
    built: tuple[Bundle, dict[str, BuiltEngine]],
) -> None:
    bundle, engines = built
    full, quantised = engines["fp32"].record, engines["int8"].record
    assert full.memory.weights is not None and quantised.memory.weights is not None
    assert quantised.memory.weights < 0.5 * full.memory.weights
    assert quantised.accuracy == bundle.graph("clip.int8").accuracy
    assert quantised.accuracy is not None and quantised.accuracy.passed


def test_an_engine_keeps_what_its_graph_was_judged_on(bundle: Path) -> None:
    convert_bundle(bundle, "fp16", progress=lambda *_: None)
    graph = Bundle.open(bundle).graph("clip.fp16")
    with update_bundle(Bundle.open(bundle)) as update:
        assert graph.accuracy is not None
        judged = graph.accuracy.model_copy(update={"miou": 0.996, "vectors_miou": graph.accuracy.miou})
        update.graphs["clip.fp16"] = graph.model_copy(update={"accuracy": judged})
    assert _build(bundle, "fp16", "plain").record.accuracy != judged  # of another graph: clip.plain.fp16
    assert _build(bundle, "fp16").record.accuracy == judged
    assert Bundle.open(bundle).graph("clip.fp16").accuracy == judged


def test_a_float32_product_in_a_float16_engine_fails_the_build(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter is made to leave one product behind; only what is read back from the engine can show it."""
    from avsbg.export.precision import convert as convert_module
    from avsbg.export.precision import rules

    left_behind = "network.decoder.0.refine.first.conv/Conv"
    honest = rules.assign

    def careless(graph, low):  # type: ignore[no-untyped-def]
        with pytest.MonkeyPatch.context() as patch:
            rule = Rule("forgotten", Choice.FP32, "a mistake", lambda node: node.name == left_behind)
            patch.setattr(rules, "RULES", (rule, *rules.RULES))
            return honest(graph, low)

    monkeypatch.setattr(convert_module, "assign", careless)
    before = sha256(bundle / MANIFEST)
    with pytest.raises(BuildError, match=rf"1 products are not computed in fp16: {left_behind}: fp32"):
        _build(bundle, "fp16", "plain")
    assert sha256(bundle / MANIFEST) == before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]
    kept = _build(bundle, "fp16", "plain", allow_precision_fallback=True)
    assert kept.record.realised.differing == (f"{left_behind}: fp32",)


def test_a_product_that_tensorrt_does_not_compute_in_int8_fails_the_build(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule on keys and values is lifted for one product, which TensorRT then really computes in float32."""
    from avsbg.export.precision import rules

    stays = "network.encoder.network.stages.3.blocks.0.attn.kv/MatMul"
    rule = rules._is_sliced_later
    monkeypatch.setattr(rules, "_is_sliced_later", lambda node: node.name != stays and rule(node))
    with update_bundle(Bundle.open(bundle)) as update:
        record = update.bundle.manifest.quantisations["int8"]
        assert stays not in record.ranges
        ranges = {**record.ranges, stays: 3.0}
        update.quantisations["int8"] = record.model_copy(update={"ranges": ranges})
        add_graph(update, "clip.plain", "int8")
    with pytest.raises(BuildError, match=rf"1 products are not computed in int8: {stays}: fp32 and int8"):
        _build(bundle, "int8", "plain")
    assert not (bundle / "engines").exists()
    kept = _build(bundle, "int8", "plain", allow_precision_fallback=True)
    assert kept.record.realised.differing == (f"{stays}: fp32 and int8",)
    assert Bundle.open(bundle).manifest.engines[kept.name].realised == kept.record.realised


def test_int8_is_built_only_from_what_convert_made(bundle: Path) -> None:
    with update_bundle(Bundle.open(bundle)) as update:
        update.graphs["clip.plain.int8"] = None  # type: ignore[assignment]
    with pytest.raises(
        PrecisionError, match=r"no graph clip\.plain\.int8.*avsbg quantize .* --precision int8 --calibrate"
    ):
        _build(bundle, "int8", "plain")


def test_turing_has_no_float32_products(bundle: Path) -> None:
    request = EngineRequest("tensorrt-rtx", "int8", "plain", CLIPS, (75,))
    with pytest.raises(BuildError, match=r"FP32 GEMM is not supported.*no float32 matrix products for Turing"):
        build_into_bundle(bundle, request, report=lambda _: None, progress=lambda *_: None)


def test_a_bundle_that_changes_meanwhile_is_left_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meddle(*arguments: object, **options: object) -> None:
        (bundle / MANIFEST).write_text((bundle / MANIFEST).read_text() + "\n")
        raise_later.append(True)
        return real(*arguments, **options)

    raise_later: list[bool] = []
    real = build_module.compare_types
    monkeypatch.setattr(build_module, "compare_types", meddle)
    from avsbg.runtime.errors import BundleError

    with pytest.raises(BundleError, match="changed by another process"):
        _build(bundle, "fp32", "plain")
    assert raise_later and not (bundle / "engines").exists()


def test_command_lines_repeat_the_build(built: tuple[Bundle, dict[str, BuiltEngine]]) -> None:
    _, engines = built
    commands = engines["fp16"].record.commands
    assert "--onnx=clip.fp16.plugin.onnx" in commands["trtexec"]
    assert "--onnx=clip.plain.fp16.onnx" in engines["fp16 plain"].record.commands["trtexec"]
    assert "--maxShapes=frames:4x2x64x64x3,audio_embedding:4x2x128" in commands["trtexec"]
    assert "--dynamicPlugins=/path/to/libavsbg_tensorrt.so" in commands["trtexec"]
    assert "--strongly-typed" in commands["polygraphy"] and "--tf32" not in commands["polygraphy"]


def test_verify_says_that_an_engine_was_not_run(built: tuple[Bundle, dict[str, BuiltEngine]], tmp_path: Path) -> None:

    from fixtures.cli import run_avsbg

    bundle, engines = built
    arguments = ["verify", str(bundle.path), "--json", str(tmp_path / "result.json")]
    result = run_avsbg(*arguments)
    assert result.code == 0, result.output
    document = json.loads((tmp_path / "result.json").read_text())
    names = {engine.name for engine in engines.values()}
    assert names <= set(document["not_run"])
    assert not names & {entry["target"] for entry in document["results"]}
    assert {"onnxruntime:function", "onnxruntime:plain"} <= {entry["target"] for entry in document["results"]}
    assert result.output.count("not run") == len(document["not_run"])
    assert "that ran pass" in result.output
