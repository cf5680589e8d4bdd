"""Engines of a small AVS-BG, built by TensorRT for RTX on a machine that needs no GPU for that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install 'avsbg[rtx]'")

from avsbg.export.bundle import export_bundle
from avsbg.export.engine import build as build_module
from avsbg.export.engine.build import BuiltEngine, build_into_bundle
from avsbg.export.engine.request import BuildError, EngineRequest
from avsbg.export.graphs import AudioForm
from avsbg.export.precision.rules import Choice, Rule
from avsbg.export.shape import ClipShape
from avsbg.export.weights import from_seed
from avsbg.model import named_variant
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.errors import NativeLibraryError
from avsbg.runtime.manifest import MANIFEST
from avsbg.runtime.native_library import native_library

CLIPS = (1, 2, 4)


@pytest.fixture(scope="module", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The list of engines that this user built is not the tests' business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AVS-BG with the smallest encoder, two frames of 64 x 64, embeddings as sound; tests do not change it."""
    module, weights = from_seed(named_variant("avs-bg", encoder="pvt_v2_b0"), AudioForm.EMBEDDING, seed=0)
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    export_bundle(module, path, weights=weights, shape=ClipShape(2, 64, 64))
    return path


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to change."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def _build(path: Path, precision: str, operator: str = "plugin", **options: object) -> BuiltEngine:
    if operator == "plugin":
        try:
            native_library("tensorrt")
        except NativeLibraryError as error:
            pytest.skip(str(error))
    request = EngineRequest("tensorrt-rtx", precision, operator, CLIPS, (86,))  # type: ignore[arg-type]
    phases: list[tuple[str, int, int]] = []
    built = build_into_bundle(
        path,
        request,
        report=lambda _: None,
        progress=lambda *step: phases.append(step),
        **options,  # type: ignore[arg-type]
    )
    assert any(done == total > 0 for _, done, total in phases), "the builder reported no progress"
    return built


@pytest.fixture(scope="module")
def built(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, BuiltEngine]]:
    """A bundle with a plugin engine in float32, and a plugin and a plain one in float16."""
    path = Path(shutil.copytree(exported, tmp_path_factory.mktemp("built") / "bundle"))
    engines = {
        "fp32": _build(path, "fp32"),
        "fp16": _build(path, "fp16"),
        "fp16 plain": _build(path, "fp16", "plain"),
    }
    return Bundle.open(path), engines


def test_every_product_has_the_precision_asked_for(built: tuple[Bundle, dict[str, BuiltEngine]]) -> None:
    bundle, engines = built
    convolutions_and_products = sum(bundle.graph("clip").operators[name] for name in ("Conv", "MatMul"))
    for key, precision in (("fp32", "fp32"), ("fp16", "fp16")):
        realised = engines[key].record.realised
        assert realised.products == {precision: convolutions_and_products + 4}
        assert realised.differing == ()


def test_engines_and_the_graphs_they_come_from_are_in_the_manifest(
    built: tuple[Bundle, dict[str, BuiltEngine]],
) -> None:
    bundle, engines = built
    assert set(bundle.manifest.engines) == {engine.name for engine in engines.values()}
    for engine in engines.values():
        record = bundle.manifest.engines[engine.name]
        assert record == engine.record
        assert record.graph_sha256 == sha256(bundle.file(bundle.graph(record.graph).file))
        assert record.device.compute_capabilities == (86,) and record.device.name is None
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
    for key, count in (("fp32", 4), ("fp16", 4), ("fp16 plain", 0)):
        layers = json.loads(bundle.file(engines[key].record.layers_file).read_text())
        assert sum(layer["kind"] == "custom_layer" for layer in layers) == count, key


def test_float16_halves_the_weights_and_stays_within_its_gate(built: tuple[Bundle, dict[str, BuiltEngine]]) -> None:
    _, engines = built
    full, half = engines["fp32"].record, engines["fp16"].record
    assert full.memory.weights is not None and half.memory.weights is not None
    assert half.memory.weights < 0.55 * full.memory.weights
    assert half.accuracy is not None and half.accuracy.passed
    assert 0 < half.accuracy.largest_difference < 0.05


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


def test_a_bundle_that_changes_meanwhile_is_left_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meddle(*arguments: object, **options: object) -> None:
        (bundle / MANIFEST).write_text((bundle / MANIFEST).read_text() + "\n")
        raise_later.append(True)
        return real(*arguments, **options)

    raise_later: list[bool] = []
    real = build_module.product_types
    monkeypatch.setattr(build_module, "product_types", meddle)
    from avsbg.runtime.errors import BundleError

    with pytest.raises(BundleError, match="changed by another process"):
        _build(bundle, "fp32", "plain")
    assert raise_later and not (bundle / "engines").exists()


def test_command_lines_repeat_the_build(built: tuple[Bundle, dict[str, BuiltEngine]]) -> None:
    _, engines = built
    commands = engines["fp16"].record.commands
    assert "--onnx=clip.fp16.onnx" in commands["trtexec"]
    assert "--maxShapes=frames:4x2x64x64x3,audio_embedding:4x2x128" in commands["trtexec"]
    assert "--dynamicPlugins=libavsbg_tensorrt.so" in commands["trtexec"]
    assert "--strongly-typed" in commands["polygraphy"] and "--tf32" not in commands["polygraphy"]


def test_verify_says_that_an_engine_was_not_run(built: tuple[Bundle, dict[str, BuiltEngine]], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from avsbg.cli import app

    bundle, engines = built
    arguments = ["verify", str(bundle.path), "--backend", "onnxruntime:plain", "--json", str(tmp_path / "result.json")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "result.json").read_text())
    assert set(document["not_run"]) == {engine.name for engine in engines.values()}
    assert [entry["target"] for entry in document["results"]] == ["onnxruntime:plain"]
    assert result.output.count("not run") == len(engines)
    assert "all outputs of the 1 backends that ran" in result.output
