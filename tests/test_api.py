"""The Python interface: `avsbg.load`, `avsbg.verify` and `avsbg.export`."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import avsbg
from avsbg.runtime.bundle import Bundle, update_bundle
from avsbg.runtime.errors import BackendError, BundleError, MediaError
from avsbg.runtime.media import sources
from avsbg.runtime.segment.pipeline import AHEAD
from fixtures import stream_bundle
from fixtures.cli import run_avsbg
from fixtures.videos import steady, tone, write_video


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", times=steady(25, 50), sound=tone(2))


def test_masks_of_a_video_are_those_of_the_command(tiny: Bundle, clip: Path, tmp_path: Path) -> None:
    with avsbg.load(tiny.path, "onnxruntime:plain", threads=1) as model:
        frames = list(model.segment(clip))
        again = list(model.segment(clip, threshold=0.0, silent=True))
    outcome = run_avsbg("run", tiny.path, clip, "-o", tmp_path / "out", "--backend", "onnxruntime:plain")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in (tmp_path / "out/frames.jsonl").read_text().splitlines()]
    assert [frame.time for frame in frames] == pytest.approx([line["time"] for line in lines])
    for number, frame in enumerate(frames):
        assert frame.mask.dtype == np.bool_ and frame.probability.dtype == np.float32
        png = np.asarray(Image.open(tmp_path / f"out/masks/{number:05d}.png"))
        assert np.array_equal(frame.mask, png > 0)
    assert len(again) == 2 and all(frame.mask.all() for frame in again)


def test_auto_is_told_and_recorded(
    tiny: Bundle, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AVSBG_CACHE", str(tmp_path / "cache"))
    with caplog.at_level(logging.INFO, logger="avsbg.model"), avsbg.load(tiny.path) as model:
        assert model.selections == {}  # nothing is opened before it is needed
        assert len(list(model.segment(clip))) == 2
        taken = model.selections["clip"].backend
    assert f"auto took {taken}" in caplog.text
    outcome = run_avsbg("run", tiny.path, clip, "-o", tmp_path / "out", "--backend", "auto")
    assert outcome.code == 0, outcome.err
    assert f"backend: auto took {taken}" in outcome.paragraph and f"on auto ({taken})" in outcome.text
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["settings"]["target"] == "auto"
    assert summary["selection"]["backend"] == taken
    assert "tensorrt" in summary["selection"]["passed_over"]
    assert "finished before" in run_avsbg("run", tiny.path, clip, "-o", tmp_path / "out", "--backend", "auto").out


def test_a_stream_takes_frames_and_sound(tiny_stream: Bundle) -> None:
    with (
        avsbg.load(tiny_stream.path, "onnxruntime") as model,
        model.stream(outputs=("logits", "probability")) as stream,
    ):
        masks = stream.push(stream_bundle.frame(1), stream_bundle.clock(0, 1))
        masks += stream.push(stream_bundle.frame(2), stream_bundle.clock(1, 1))
        masks += stream.close()
    assert stream_bundle.seen(masks) == [(1, 2, "next"), (2, 1, "previous")]


def test_a_program_that_is_too_slow_for_a_live_source_loses_the_oldest_seconds(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.enumerate()

    def read_threads() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "avsbg-read" and one not in before]

    monkeypatch.setattr(sources, "PATIENT", set())  # as of a camera
    with avsbg.load(tiny.path, "onnxruntime") as model:
        frames = model.segment("lavfi:color=white:size=64x48:rate=4:duration=40[out0];sine=duration=40[out1]")
        times = [next(frames).time]
        (thread,) = read_threads()
        thread.join(300)
        assert not thread.is_alive()
        times += [frame.time for frame in frames]
        # The first clip's seconds may be lost too, where the reader is done before they are taken.
        assert AHEAD <= len(times) <= tiny.manifest.clip.frames + AHEAD and times == sorted(times)
        assert times[-4:] == pytest.approx([36.75, 37.75, 38.75, 39.75])
        endless = model.segment("lavfi:color=white:size=64x48:rate=4[out0];sine[out1]", rate=2)
        assert next(endless).time == pytest.approx(0.75)
        endless.close()
        assert read_threads() == []


def test_errors_say_what_is_wrong(tiny: Bundle, tmp_path: Path) -> None:
    model = avsbg.load(tiny.path, "onnxruntime")
    with pytest.raises(BackendError, match="no graphs for streams"), model.stream():
        pass
    with pytest.raises(MediaError, match=r"there is no video at|cannot be read"):
        list(model.segment(tmp_path / "missing.mp4"))
    with pytest.raises(BackendError, match="is neither an implementation nor a precision"):
        avsbg.load(tiny.path, "auto:magic")


def test_a_bundle_that_is_updated_before_its_backend_is_open_is_an_error(bundle_copy: Path) -> None:
    for remove in (False, True):
        model = avsbg.load(bundle_copy, "onnxruntime:plain")
        with update_bundle(Bundle.open(bundle_copy)) as update:
            record = update.bundle.manifest.graphs["clip"]
            update.graphs["clip"] = record.model_copy(update={"node_count": record.node_count + 1})
        if remove:  # before it was first read
            (bundle_copy / model.bundle.graph("clip.plain").file).unlink()
        with model, pytest.raises(BundleError, match="was updated while it was opened") as raised:
            _ = model.clip_backend
        assert raised.value.hint == "Load it again."


def test_a_bundle_is_verified(tiny: Bundle) -> None:
    report = avsbg.verify(tiny.path, ["onnxruntime:plain"], clips=[1])
    assert report.passed and report.not_run == {}
    assert [result["target"] for result in report.results] == ["onnxruntime:plain"]
    assert report.to_dict()["bundle"]["name"] == "tiny"
    assert [masks.shape for masks in report.masks["onnxruntime:plain"].values()] == [(1, 5, 16, 24)]


def test_the_package_export_is_the_function_too(tmp_path: Path) -> None:
    from avsbg.export.shape import ExportError

    with pytest.raises(ExportError, match="exactly one of --checkpoint and --seed"):
        avsbg.export("avs-bg", tmp_path / "bundle")
    with pytest.raises(ExportError, match="belongs to --checkpoint"):
        avsbg.export("avs-bg", tmp_path / "bundle", seed=0, vggish=tmp_path / "vggish.pth")


def test_loading_a_bundle_imports_no_pytorch_and_the_package_alone_nothing_heavy(tiny: Bundle) -> None:
    script = (
        "import sys, avsbg\n"
        "assert not {'numpy', 'av', 'torch', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules)\n"
        f"avsbg.load({str(tiny.path)!r}, 'onnxruntime').clip_backend\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
