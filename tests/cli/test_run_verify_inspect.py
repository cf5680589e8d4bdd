"""The verbs as a user meets them: exit codes, paragraphs on stderr, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from avsbg import native_library
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import MANIFEST
from fixtures.cli import run_avsbg
from fixtures.engines import add_engine, passed
from fixtures.videos import steady, tone, write_video


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", times=steady(25, 50), sound=tone(2))


def test_run_writes_its_output_and_says_where(tiny: Bundle, clip: Path, tmp_path: Path) -> None:
    outcome = run_avsbg(
        "run", tiny.path, clip, "-o", tmp_path / "out", "--threads", 1, "--backend", "onnxruntime:plain"
    )
    assert outcome.code == 0, outcome.err
    assert f"{tmp_path}/out/overlay.png" in outcome.out
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["backend"]["operator"] == "plain"
    assert summary["backend"]["threads"] == 1
    assert summary["seconds"] == 2
    again = run_avsbg("run", tiny.path, clip, "-o", tmp_path / "out", "--threads", 1, "--backend", "onnxruntime:plain")
    assert again.code == 0
    assert "finished before" in again.out
    other = run_avsbg("run", tiny.path, clip, "-o", tmp_path / "out")
    assert other.code == 1
    assert "--overwrite" in other.paragraph
    assert run_avsbg("run", tiny.path, clip, "-o", tmp_path / "out", "--overwrite").code == 0


def test_bad_input_is_a_paragraph_and_nothing_half_written(tiny: Bundle, clip: Path, tmp_path: Path) -> None:
    mute = write_video(tmp_path / "mute.mp4", times=steady(25, 25))
    truncated = tmp_path / "truncated.mp4"
    truncated.write_bytes(clip.read_bytes()[:2000])
    (tmp_path / "text.mp4").write_text("no video")
    cases = {
        (tiny.path, tmp_path / "missing.mp4"): "there is no video at",
        (tiny.path, tmp_path / "text.mp4"): "cannot be read as a video",
        (tiny.path, truncated): "cannot be read as a video",
        (tiny.path, mute): "--no-sound",
        (tmp_path / "nowhere", clip): "there is no bundle at",
        (tmp_path, clip): "holds no manifest.json",
    }
    for (bundle, video), message in cases.items():
        outcome = run_avsbg("run", bundle, video, "-o", tmp_path / "out")
        assert outcome.code == 1
        assert outcome.paragraph.startswith("error: ")
        assert message in outcome.paragraph
        assert "Traceback" not in outcome.err
        assert not (tmp_path / "out").exists()
    for option, value, message in [
        (
            "--backend",
            "tpu",
            "Choose one of: onnxruntime, ",
        ),
        ("--backend", "onnxruntime:magic", "function, native, plugin, plain"),
        ("--threshold", "2", "[0, 1)"),
    ]:
        outcome = run_avsbg("run", tiny.path, clip, "-o", tmp_path / "out", option, value)
        assert outcome.code == 1
        assert message in outcome.paragraph
    assert run_avsbg("run", tiny.path, clip, "-o", tmp_path / "out", "--threads", "0").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "mute.mp4", "text.mp4", "truncated.mp4"]


def test_run_silent(tiny: Bundle, tmp_path: Path) -> None:
    mute = write_video(tmp_path / "mute.mp4", times=steady(25, 25))
    assert run_avsbg("run", tiny.path, mute, "-o", tmp_path / "out", "--no-sound", "--probabilities").code == 0
    assert (tmp_path / "out/probabilities/00000.png").is_file()


def test_verify_passes_and_writes_json(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "_folders", lambda: [Path("/nowhere")])
    outcome = run_avsbg("verify", tiny.path, "--json", tmp_path / "verify.json")
    assert outcome.code == 0, outcome.err
    for word in ("onnxruntime:function", "onnxruntime:plain", "logits", "probability", "pass"):
        assert word in outcome.out
    document = json.loads((tmp_path / "verify.json").read_text())
    assert document["passed"]
    assert document["bundle"]["manifest_sha256"] == sha256(tiny.path / MANIFEST)
    assert [result["target"] for result in document["results"]] == ["onnxruntime:function", "onnxruntime:plain"]
    assert [len(result["comparisons"]) for result in document["results"]] == [4, 4]
    assert "no native libraries" in document["not_run"]["onnxruntime:native"]
    assert [clip["miou"] for clip in document["results"][0]["clips"]] == [1.0] * 4
    asked = run_avsbg("verify", tiny.path, "--backend", "onnxruntime:native")
    assert asked.code == 1
    assert "no native libraries" in asked.paragraph


def _change_vectors(bundle: Path, value: float) -> None:
    """Put `value` into the reference logits, with the hash that fits."""
    name = "vectors/clips1_seed1.npz"
    with np.load(bundle / name, allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays["outputs.logits"].flat[3] = value
    np.savez(bundle / name, **arrays)
    document = json.loads((bundle / MANIFEST).read_text())
    document["files"][name] = {"sha256": sha256(bundle / name), "bytes": (bundle / name).stat().st_size}
    (bundle / MANIFEST).write_text(json.dumps(document))


@pytest.mark.parametrize("value", [99.0, float("nan")])
def test_verify_fails_where_an_output_differs(bundle_copy: Path, tmp_path: Path, value: float) -> None:
    _change_vectors(bundle_copy, value)
    outcome = run_avsbg("verify", bundle_copy, "--backend", "onnxruntime", "--json", tmp_path / "verify.json")
    assert outcome.code == 1
    assert "FAIL" in outcome.out
    assert "onnxruntime: an output differs" in outcome.out
    document = json.loads((tmp_path / "verify.json").read_text(), parse_constant=pytest.fail)
    assert not document["passed"]
    assert run_avsbg("verify", bundle_copy, "--backend", "onnxruntime", "--batch", "3").code == 0
    missing = run_avsbg("verify", bundle_copy, "--batch", "2")
    assert missing.code == 1
    assert "It has: 1, 3." in missing.paragraph


def test_an_engine_is_listed_as_not_run_and_never_as_passed(bundle_copy: Path, tmp_path: Path) -> None:
    add_engine(bundle_copy, "clip.fp16")
    outcome = run_avsbg("verify", bundle_copy, "--json", tmp_path / "verify.json", "--picture", tmp_path / "masks.png")
    assert outcome.code == 0, outcome.err
    assert "not run clip.fp16: " in outcome.text
    document = json.loads((tmp_path / "verify.json").read_text())
    assert "clip.fp16" in document["not_run"]
    assert "clip.fp16" not in [result["target"] for result in document["results"]]
    assert (tmp_path / "masks.png").is_file()
    asked = run_avsbg("verify", bundle_copy, "--engine", "clip.fp16")
    assert asked.code == 1 and "error: " in asked.paragraph
    unknown = run_avsbg("verify", bundle_copy, "--engine", "clip.fp8")
    assert unknown.code == 1 and "has no engine 'clip.fp8'" in unknown.paragraph


def test_a_changed_file_stops_every_verb(bundle_copy: Path, clip: Path, tmp_path: Path) -> None:
    with (bundle_copy / "clip.plain.onnx").open("ab") as stream:
        stream.write(b"\0")
    for arguments in (
        ["verify", bundle_copy],
        ["inspect", bundle_copy],
        ["run", bundle_copy, clip, "-o", tmp_path / "o"],
    ):
        outcome = run_avsbg(*arguments)
        assert outcome.code == 1
        assert "clip.plain.onnx of the bundle" in outcome.paragraph
        assert "has changed" in outcome.paragraph


def test_inspect_for_people_and_for_programs(tiny: Bundle) -> None:
    outcome = run_avsbg("inspect", tiny.path)
    assert outcome.code == 0
    for word in ("tiny", "5 frames of 16 x 24", "random, seed 0", "1 avsbg::MeanCorrelation", "[clips, 5, 16, 24, 3]"):
        assert word in outcome.out
    as_json = run_avsbg("inspect", tiny.path, "--format", "json")
    assert json.loads(as_json.out) == json.loads((tiny.path / MANIFEST).read_text())


@pytest.mark.parametrize("verb", ["", "run", "verify", "inspect"])
def test_help_answers_without_heavy_imports(verb: str) -> None:
    """Help must not wait for numpy, PyAV, PyTorch or ONNX."""
    script = (
        "import sys\n"
        "from avsbg.cli import main\n"
        f"sys.argv = ['avsbg', *{verb!r}.split(), '--help']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'numpy', 'av', 'torch', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def _with_accuracy(path: Path, miou: float) -> None:
    """An engine of the bundle whose masks reach that mean IoU."""
    add_engine(path, "clip.fp16", accuracy=passed(miou))


def test_an_engine_is_run_by_target_or_name_and_refused_where_its_gate_failed(
    bundle_copy: Path, clip: Path, tmp_path: Path
) -> None:
    none = run_avsbg("run", bundle_copy, clip, "-o", tmp_path / "out", "--backend", "tensorrt")
    assert none.code == 1 and f"avsbg build {bundle_copy} --backend tensorrt" in none.paragraph
    _with_accuracy(bundle_copy, 0.5)
    for options in (["--backend", "tensorrt:plain:fp16"], ["--backend", "tensorrt", "--engine", "clip.fp16"]):
        refused = run_avsbg("run", bundle_copy, clip, "-o", tmp_path / "out", *options)
        assert refused.code == 1
        assert "missed its accuracy threshold" in refused.paragraph and "--allow-failed-accuracy" in refused.paragraph
        assert "--overwrite" not in refused.paragraph
    forced = run_avsbg(
        "run", bundle_copy, clip, "-o", tmp_path / "out", "--backend", "tensorrt", "--allow-failed-accuracy"
    )
    assert (
        "warning: tensorrt runs although it missed its accuracy threshold: mean IoU of its masks 0.5000"
        in forced.paragraph
    )
    assert forced.code == 1  # there is no TensorRT or GPU here
    assert not (tmp_path / "out").exists()
    other = run_avsbg("run", bundle_copy, clip, "-o", tmp_path / "out", "--engine", "clip.fp16")
    assert other.code == 1 and "onnxruntime has no option 'engine'" in other.paragraph
    trust = run_avsbg("run", bundle_copy, clip, "-o", tmp_path / "out", "--trust")
    assert trust.code == 1 and "onnxruntime has no option 'trust'" in trust.paragraph


def test_a_graph_whose_gate_failed(bundle_copy: Path, clip: Path, tmp_path: Path) -> None:
    document = json.loads((bundle_copy / MANIFEST).read_text())
    document["graphs"]["clip"]["accuracy"] = passed(0.5)
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    for options in ([], ["--overwrite"]):  # which replaces outputs, and nothing else
        refused = run_avsbg("run", bundle_copy, clip, "-o", tmp_path / "out", *options)
        assert refused.code == 1 and "the graph clip missed its accuracy threshold" in refused.paragraph
    options = ["-o", tmp_path / "out", "--allow-failed-accuracy", "--no-overlay"]
    forced = run_avsbg("run", bundle_copy, clip, *options)
    assert forced.code == 0 and "warning: onnxruntime runs although" in forced.paragraph
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["backend"]["gate"] == "failed, overridden" and summary["backend"]["miou"] == 0.5
    again = run_avsbg("run", bundle_copy, clip, *options, "--threshold", "0.4")
    assert again.code == 1 and "exists already" in again.paragraph and "--overwrite" in again.paragraph
