"""Sound that a network does not use is not asked for, and a file is read no more often than its parts need."""

from __future__ import annotations

import builtins
import hashlib
import io
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import pytest

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.sources import LiveSource, parse_source
from avsbg.runtime.segment.batch import VideoWorker, find_videos, run_batch
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.run import segment_live, segment_video
from avsbg.runtime.segment.segmenter import ClipSegmenter, Segmenter, StreamSegmenter
from fixtures import tiny_bundle
from fixtures.videos import steady, tone, write_video

OPTIONS = Options(masks="none", overlay=False)


def segmenter(stack: ExitStack, bundle: Bundle, mode: str) -> Segmenter:
    if mode == "clip":
        return ClipSegmenter(stack.enter_context(create("onnxruntime", bundle)))
    encode, decode = (stack.enter_context(create("onnxruntime", bundle, graph=name)) for name in ("encode", "decode"))
    return StreamSegmenter(encode, decode)


@pytest.mark.parametrize("mode", ["clip", "stream"])
@pytest.mark.parametrize("source", ["file", "batch", "live"])
def test_a_network_without_audio_takes_a_mute_video(
    tiny: Bundle, tiny_stream: Bundle, tmp_path: Path, mode: str, source: str
) -> None:
    mute = write_video(tmp_path / "mute.mp4", times=steady(25, 50))
    live = parse_source("lavfi:color=white:size=64x48:rate=10")
    assert isinstance(live, LiveSource)

    def run(bundle: Bundle) -> dict[str, Any]:
        with ExitStack() as stack:
            network = segmenter(stack, bundle, mode)
            if source == "file":
                return segment_video(network, mute, tmp_path / "out", OPTIONS)
            if source == "live":
                return segment_live(
                    network, live, tmp_path / "out", OPTIONS, stop=threading.Event(), duration=2
                )[0]  # fmt: skip
            (result,) = run_batch(VideoWorker(network, OPTIONS), find_videos([mute], tmp_path / "out"))
            if result.error is not None:
                raise MediaError(result.error)
            assert result.summary is not None
            return result.summary

    original = tiny if mode == "clip" else tiny_stream
    with pytest.raises(MediaError, match="and the network uses audio"):
        run(original)
    summary = run(tiny_bundle.without_audio(original, tmp_path / "bundle"))
    assert (summary["seconds"], summary["video"]["has_sound"]) == (2, False)
    assert summary["settings"]["stream"] == (mode == "stream")


@pytest.mark.parametrize("audio", ["waveform", "log_mel", "audio_embedding"])
def test_a_network_without_audio_gets_silence_in_every_form(tmp_path: Path, audio: str) -> None:
    made = tiny_bundle.make_bundle(tmp_path / "made", audio=audio, vectors=False)
    bundle = tiny_bundle.without_audio(made, tmp_path / "bundle")
    video = write_video(tmp_path / "v.mp4", times=steady(25, 50), sound=tone(2))
    with create("onnxruntime", bundle) as backend:
        summary = segment_video(ClipSegmenter(backend), video, tmp_path / "out", OPTIONS)
    assert (summary["seconds"], summary["sounding_seconds"]) == (2, 0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """Tells who opened a file so far: FFmpeg, or Python."""
    calls: list[tuple[str, Path]] = []

    def watch(module: Any, name: str, who: str) -> None:
        original = getattr(module, name)

        def call(file: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(file, str | Path):
                calls.append((who, Path(file)))
            return original(file, *arguments, **options)

        monkeypatch.setattr(module, name, call)

    watch(av, "open", "FFmpeg")
    watch(builtins, "open", "Python")
    watch(io, "open", "Python")
    return lambda path: [who for who, name in calls if name == path]


@pytest.mark.parametrize("overlay", [False, True])
@pytest.mark.parametrize("silent", [False, True])
def test_a_file_is_opened_once_for_each_purpose(
    tiny: Bundle,
    tmp_path: Path,
    opened: Callable[[Path], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    overlay: bool,
    silent: bool,
) -> None:
    video = write_video(tmp_path / "v.mp4", times=steady(25, 50), sound=tone(2))
    before = len(opened(video))
    hashes = []
    original = hashlib.sha256
    monkeypatch.setattr("avsbg.runtime.bundle.bundle.hashlib.sha256", lambda *data: hashes.append(1) or original(*data))
    with create("onnxruntime", tiny) as backend:
        hashes.clear()
        options = Options(masks="none", overlay=overlay, silent=silent)
        (result,) = run_batch(VideoWorker(ClipSegmenter(backend), options), find_videos([video], tmp_path / "out"))
    assert result.state == "done"
    # Python hashes it and looks at its first bytes; FFmpeg probes it, and reads frames, sound, and all for the overlay.
    calls = opened(video)[before:]
    assert (calls.count("Python"), calls.count("FFmpeg")) == (2, 2 + (not silent) + overlay)
    assert len(hashes) == 2, "one of the file, one of the run's key"
