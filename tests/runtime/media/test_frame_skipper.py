"""Frames that nobody needs are not decoded, and the frames that are chosen are those of decoding everything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media import container
from avsbg.runtime.media import video as video_module
from avsbg.runtime.media.audio import AudioReader
from avsbg.runtime.media.container import VideoInfo, open_media, open_video, probe, ticks_of
from avsbg.runtime.media.samples import Sample
from avsbg.runtime.media.video import FrameSkipper, last_tick
from fixtures.videos import read_mute, real_video, steady, tone, write_video

NTSC = Fraction(30000, 1001)


@dataclass(frozen=True)
class Kind:
    """The encoding of a video."""

    suffix: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    alone: bool = False


X264 = {"preset": "veryfast", "qp": "24"}
# The encoder closes groups only where it looks for no changes of scene.
CLOSED_MPEG2 = {"bf": "2", "g": "15", "flags": "+cgop", "sc_threshold": "1000000000"}
KINDS = {
    "h264, one group": Kind("mp4", "libx264", {**X264, "bf": "0", "g": "1000"}),
    "h264, B frames": Kind("mp4", "libx264", {**X264, "bf": "3", "g": "40", "b_strategy": "0"}),
    "h264, B pyramid": Kind("mkv", "libx264", {**X264, "bf": "8", "b-pyramid": "normal", "g": "33"}),
    "h264, open groups": Kind("ts", "libx264", {**X264, "bf": "3", "g": "17", "x264-params": "open-gop=1:bframes=3"}),
    "h264, no B reference": Kind("ts", "libx264", {**X264, "bf": "2", "b-pyramid": "none", "g": "50"}),
    "h264, fragments": Kind("mp4", "libx264", {**X264, "bf": "3", "movflags": "frag_keyframe+empty_moov"}),
    "hevc": Kind("mp4", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:keyint=30"}),
    "mpeg4": Kind("mp4", "mpeg4", {"bf": "2", "g": "12"}),
    "mpeg4, AVI": Kind("avi", "mpeg4", {"bf": "2", "g": "12"}),
    "mpeg2": Kind("ts", "mpeg2video", {"bf": "2", "g": "15"}),
    "mpeg2, closed": Kind("mkv", "mpeg2video", CLOSED_MPEG2),
    "mpeg1": Kind("mkv", "mpeg1video", {"bf": "2", "g": "15"}),
    "vp9": Kind("mkv", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "20"}),
    "mjpeg": Kind("mkv", "mjpeg", pixel_format="yuvj420p", alone=True),
    "ffv1": Kind("mkv", "ffv1"),
    "prores": Kind("mkv", "prores_ks", pixel_format="yuv422p10le", alone=True),
}  # fmt: skip


def write(path: Path, kind: Kind, times: Sequence[Fraction], rate: Fraction | int) -> Path:
    """A textured ground that moves with each frame: a missing reference would show."""
    muxing = {name: value for name, value in kind.options.items() if name == "movflags"}
    encoding = {name: value for name, value in kind.options.items() if name != "movflags"}
    texture = np.random.default_rng(0).integers(0, 256, (80, 96 + 7 * len(times), 3), np.uint8)
    with av.open(str(path), "w", options=muxing) as target:
        stream = target.add_stream(kind.codec, rate=rate, options=encoding)
        stream.width, stream.height, stream.pix_fmt = 96, 80, kind.pixel_format
        stream.codec_context.time_base = Fraction(1, 90000) if not kind.codec.startswith("mpeg") else 1 / Fraction(rate)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[:, 7 * index : 7 * index + 96]), "rgb24")
            base = stream.codec_context.time_base
            frame.pts, frame.time_base = round(time / base), base
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return path


def everything(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Sample], int]:
    """The samples and how many frames were decoded, if all are."""
    with monkeypatch.context() as patch:
        patch.setattr(FrameSkipper, "needed", lambda _, packets: packets)
        patch.setattr(container, "HEADER_CODECS", set())
        return counted(path, patch)


def read_whole(path: Path, monkeypatch: pytest.MonkeyPatch, samples: int) -> tuple[VideoInfo, np.ndarray]:
    """The record of a file, and its sound, opened as FFmpeg opens files."""
    with monkeypatch.context() as patch:
        patch.setattr(container, "HEADER_CODECS", set())
        return read(path, samples)


def read(path: Path, samples: int) -> tuple[VideoInfo, np.ndarray]:
    video = probe(path)
    with AudioReader(video, 16000) as audio:
        return video, audio.read(samples)


def counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Sample], int]:
    """The samples, and how many frames were decoded."""
    seen: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(video_module, "ticks_of", lambda frame, name: seen.append(ticks_of(frame, name)) or seen[-1])
        return read_mute(probe(path)), len(seen)


def assert_same(ours: list[Sample], theirs: list[Sample]) -> None:
    assert [(s.number, s.time, s.length) for s in ours] == [(s.number, s.time, s.length) for s in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("rate", "count"), [(25, 137), (NTSC, 100), (24, 90)])
def test_the_chosen_frames_are_those_of_decoding_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rate: Fraction | int, count: int
) -> None:
    kind = KINDS[name]
    path = write(tmp_path / f"v.{kind.suffix}", kind, steady(rate, count), rate)
    full, all_of_them = everything(path, monkeypatch)
    thrifty, needed = counted(path, monkeypatch)
    assert_same(thrifty, full)
    assert all_of_them == count
    if kind.alone:
        assert needed == len(thrifty)
    elif name == "h264, one group":
        # Each refers to the one before, so only what follows the last one chosen can be left out.
        assert needed == round(thrifty[-1].time * rate) + 1
        assert (needed < count) == (rate != 24)
    elif name == "h264, B frames":
        assert needed < 0.8 * count
    elif kind.codec.startswith("mpeg") and "AVI" not in name:
        assert needed < 0.5 * count
    elif kind.codec not in ("libx264", "libx265", "mpeg4"):
        assert needed == count


@settings(max_examples=12, deadline=None)
@example(name="h264, open groups", gaps=[1, 40, 1])
@given(
    name=st.sampled_from(["h264, B frames", "h264, open groups", "h264, one group", "mpeg4", "mjpeg"]),
    gaps=st.lists(st.integers(1, 40), min_size=1, max_size=60),
)
def test_at_any_times(tmp_path_factory: pytest.TempPathFactory, name: str, gaps: list[int]) -> None:
    kind = KINDS[name]
    times = [Fraction(sum(gaps[:index]), 30) for index in range(len(gaps))]
    path = write(tmp_path_factory.mktemp("video") / f"v.{kind.suffix}", kind, times, 30)
    monkeypatch = pytest.MonkeyPatch()
    try:
        full = everything(path, monkeypatch)[0]
    except MediaError as error:  # a few pictures far apart, for which FFmpeg guesses a duration that they do not reach
        with pytest.raises(MediaError, match=re.escape(str(error))):
            counted(path, monkeypatch)
        return
    assert_same(counted(path, monkeypatch)[0], full)


@given(
    time=st.fractions(-5, 5, max_denominator=90000),
    rate=st.sampled_from([25, 12800, 90000, Fraction(30000, 1001)]),
    off=st.integers(-3, 3),
)
@example(time=Fraction(47, 50), rate=25, off=0)
def test_ticks_compare_as_the_times_do(time: Fraction, rate: Fraction, off: int) -> None:
    ticks = round(time * rate) + off
    assert (ticks <= last_tick(time, 1 / Fraction(rate))) == (Fraction(ticks) / rate <= time)


def test_a_damaged_picture_that_is_not_needed_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits of a picture of an MJPEG file are inverted, once between chosen ones and once in a chosen one."""
    kind = KINDS["mjpeg"]
    path = write(tmp_path / "v.mkv", kind, steady(25, 50), 25)
    sound, _ = counted(path, monkeypatch)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    for index, expected in ((10, True), (23, False)):
        pos, size = places[index]
        start, stop = pos + size // 2, pos + size // 2 + 40
        path.write_bytes(content[:start] + bytes(255 - value for value in content[start:stop]) + content[stop:])
        chosen, _ = counted(path, monkeypatch)
        assert (chosen[0].pixels == sound[0].pixels).all() == expected
        assert_same(chosen[1:], sound[1:])


@pytest.mark.parametrize("name", ["h264, B frames", "hevc", "mpeg2"])
def test_a_damaged_file_gives_the_same_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    kind = KINDS[name]
    path = write(tmp_path / f"v.{kind.suffix}", kind, steady(25, 80), 25)
    content = path.read_bytes()
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size and packet.pos]
    for pos, size in places[5::19]:
        start, stop = pos + size // 2, pos + size // 2 + 8
        path.write_bytes(content[:start] + bytes(255 - value for value in content[start:stop]) + content[stop:])
        ours, theirs = counted(path, monkeypatch)[0], everything(path, monkeypatch)[0]
        assert [(s.number, s.time, s.length) for s in ours] == [(s.number, s.time, s.length) for s in theirs]


def test_without_time_stamps_everything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS["h264, B frames"]
    path = write(tmp_path / "v.mp4", kind, steady(25, 60), 25)
    with open_media(path) as container:
        stream = container.streams.video[0]
        skipper = FrameSkipper(stream.codec_context, Fraction(0), lambda second: second + Fraction(1, 2))

        def stripped():
            for number, packet in enumerate(container.demux(stream)):
                if number >= 20:
                    packet.pts = None
                yield packet

        frames = [frame for packet in skipper.needed(stripped()) for frame in packet.decode()]
    assert 40 <= len(frames) <= 60


@pytest.mark.parametrize("kind", ["real", "plain", "fragments", "variable", "ntsc, B frames"])
def test_opening_by_the_header_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "v.mp4"
    heard = tone(2) * np.linspace(0, 1, 96000, dtype=np.float32)
    if kind == "real":
        path = real_video()
    elif kind == "variable":
        write_video(path, times=[Fraction(index**2, 90) for index in range(14)], sound=heard)
    else:
        rate = NTSC if "ntsc" in kind else 25
        options = {"movflags": "frag_keyframe+empty_moov"} if kind == "fragments" else {}
        encoder = {"bf": "3", "qp": "10", "b_strategy": "0"} if "B frames" in kind else None
        write_video(path, times=steady(rate, 50), rate=rate, sound=heard, options=options, encoder=encoder)
    (ours, our_sound), (theirs, their_sound) = read(path, 32000), read_whole(path, monkeypatch, 32000)
    assert ours == theirs
    np.testing.assert_array_equal(our_sound, their_sound)
    opened: list[object] = []
    original = container.av.open
    monkeypatch.setattr(
        container.av, "open", lambda *args, **named: opened.append(named.get("format")) or original(*args, **named)
    )
    # A fragmented file's header does not list all of it, so it is opened again, and then at once.
    by_header = kind != "fragments"
    assert probe(path).header_suffices == by_header
    assert opened == (["mp4"] if by_header else ["mp4", None])
    open_video(ours).close()
    assert opened[-1] == ("mp4" if by_header else None)
