"""Videos that players show well and that were read wrongly: each with its variants, from a file and over HTTP."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from avsbg.model.training.media import read_clip, resize
from avsbg.runtime.bundle.manifest import PreprocessingRecord
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.container import Damage, VideoInfo, probe
from avsbg.runtime.media.live import LiveReader
from avsbg.runtime.media.samples import Sample, read_samples
from avsbg.runtime.media.sources import LiveSource, parse_source
from avsbg.runtime.media.tracks import USUAL, TrackNumbers
from fixtures.odd_videos import (
    BLUE,
    BURST,
    GREEN,
    RED,
    burst,
    damage_packets,
    forget_codec,
    marked_frame,
    remux,
    serve,
    write_marked,
)
from fixtures.videos import grey_of, steady, write_video

CLIP = SimpleNamespace(frames=5, height=8, width=8, sample_rate=16000)
MANIFEST: Any = SimpleNamespace(clip=CLIP, preprocessing=PreprocessingRecord(), uses_audio=True)


@dataclass
class Reading:
    """The samples that a network would get of a source."""

    video: VideoInfo
    samples: list[Sample]
    damage: Damage
    failure: MediaError | None = None

    @property
    def indices(self) -> list[int]:
        """The index of each second's frame, modulo 50."""
        greys = [float(sample.pixels[24:40, 24:40].mean()) for sample in self.samples]
        return [round(grey / grey_of(1)) for grey in greys]

    @property
    def corners(self) -> tuple[str, ...]:
        """The colours of the first frame's corners: top left, top right, bottom left, bottom right."""
        pixels = self.samples[0].pixels.astype(int)
        names = {"red": RED, "green": GREEN, "blue": BLUE, "grey": (grey_of(self.indices[0]),) * 3}
        places = [pixels[y, x] for y in (4, -5) for x in (4, -5)]
        return tuple(min(names, key=lambda name: abs(place - names[name]).sum()) for place in places)

    @property
    def bursts(self) -> list[float]:
        """Begin and end of each stretch of sound, in seconds."""
        loud = np.flatnonzero(np.abs(np.concatenate([sample.audio for sample in self.samples])) > 0.02) / 16000
        gaps = np.flatnonzero(np.diff(loud) > 0.05)
        edges = np.concatenate([loud[:1], *([loud[i], loud[i + 1]] for i in gaps), loud[-1:]])
        return [float(edge) for edge in edges]


def read(path: Path, numbers: TrackNumbers = USUAL, *, silent: bool = False, skip: bool = False) -> Reading:
    damage = Damage()
    video = probe(path, numbers, damage if skip else None)
    samples = read_samples(video, MANIFEST, silent=silent or not video.has_audio, damage=damage if skip else None)
    return Reading(video, list(samples), damage)


def read_http(path: Path) -> Reading:
    with serve(path.parent) as address:
        source = parse_source(f"{address}/{path.name}")
        assert isinstance(source, LiveSource)
        with LiveReader(source, None, stop=threading.Event(), duration=None) as reader:
            samples = list(reader.samples(MANIFEST, silent=not reader.video.has_audio, packets=None))
            return Reading(reader.video, samples, Damage(video=reader.counters.damaged), reader.failure)


def near(*edges: float) -> Any:
    """Those edges of sound, to what a codec's own delay makes of them."""
    return pytest.approx(edges, abs=0.06)


EXPECTED = [23, 48, 23, 48, 23]  # frames 23, 48, 73, 98, 123


@pytest.mark.parametrize(
    ("suffix", "audio", "layout"),
    [
        ("mp4", "aac", "7.1"),
        ("mkv", "flac", "7.1"),
        ("mkv", "pcm_f32le", "16 channels"),
        ("mkv", "pcm_s16le", "12 channels"),
    ],
)
def test_sound_of_many_channels(tmp_path: Path, suffix: str, audio: str, layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    sound = burst(5, channels)
    sound[1:] = 0
    path = write_marked(tmp_path / f"v.{suffix}", audio=audio, layout=layout, sounds=[sound])
    heard = np.concatenate([sample.audio for sample in read(path).samples])
    peak = np.abs(heard[round(BURST[0] * 16000) + 800 : round(BURST[1] * 16000) - 800]).max()
    assert peak == pytest.approx(0.5 / channels, rel=0.1)


TURNED = {
    (1, 0, 0, 1): ("red", "green", "blue", "grey"),
    (-1, 0, 0, 1): ("green", "red", "grey", "blue"),  # mirrored left and right
    (1, 0, 0, -1): ("blue", "grey", "red", "green"),  # upside down in a mirror
    (-1, 0, 0, -1): ("grey", "blue", "green", "red"),  # 180 degrees
    (0, 1, -1, 0): ("blue", "red", "grey", "green"),  # 90 degrees clockwise
    (0, -1, 1, 0): ("green", "grey", "red", "blue"),
    (0, 1, 1, 0): ("red", "blue", "green", "grey"),  # along the diagonals
    (0, -1, -1, 0): ("grey", "green", "blue", "red"),
}


@pytest.mark.parametrize("matrix", TURNED)
def test_display_matrices(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = write_marked(tmp_path / "v.mp4", seconds=1, matrix=matrix)
    turned = (64, 96) if matrix[0] == 0 else (96, 64)
    for reading in (read(path), read_http(path)):
        assert reading.corners == TURNED[matrix]
        assert (reading.video.width, reading.video.height) == turned
    frames, _ = read_clip(path, 1)
    np.testing.assert_array_equal(frames[0], read(path).samples[0].pixels)


def test_clocks_that_start_anew_or_jump(tmp_path: Path) -> None:
    first = write_marked(tmp_path / "a.ts")
    later = remux(first, tmp_path / "b.ts", shift=lambda *_: 100.0)
    other = write_marked(tmp_path / "c.mpg", codec="mpeg2video", audio="mp2")
    pieces = {"again.ts": [first] * 3, "ahead.ts": [first, later], "back.ts": [later, first], "two.mpg": [other] * 2}
    for name, parts in pieces.items():
        (tmp_path / name).write_bytes(b"".join(part.read_bytes() for part in parts))
        reading = read(tmp_path / name)
        assert reading.indices == EXPECTED * len(parts), name
        assert reading.bursts == near(*(5 * part + edge for part in range(len(parts)) for edge in BURST)), name
        assert reading.video.clock.steps == len(parts) - 1
    over_http = read_http(tmp_path / "again.ts")
    assert "time stamps" in str(over_http.failure)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "flv"])
def test_a_clock_that_jumps_in_a_format_that_knows_no_jumps(tmp_path: Path, suffix: str) -> None:
    whole = write_marked(tmp_path / "v.mp4", gop=5)
    path = remux(whole, tmp_path / f"j.{suffix}", shift=lambda _, time: 100.0 if time > 2.5 else 0.0)
    with pytest.raises(MediaError, match=r"make a step of \+100"):
        read(path)
    # A frame that is displayed for long is none, be it beside sound that goes on or without any.
    held = remux(whole, tmp_path / f"h.{suffix}", shift=lambda kind, time: 63.0 * (kind == "video" and time > 4.5))
    assert len(read(held, silent=True).samples) in {67, 68}
    mute = write_video(tmp_path / f"m.{suffix}", times=[*steady(25, 25), Fraction(70), Fraction(71)])
    assert len(read(mute).samples) in {71, 72}


@pytest.mark.parametrize("suffix", ["avi", "mov"])
def test_a_palette_is_for_all_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"v.{suffix}"
    palette = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue
    palette[:, 0], palette[:, 1], palette[:, 2], palette[:, 3] = 255, np.arange(256), 255 - np.arange(256), 7
    with av.open(str(path), "w") as target:
        stream = target.add_stream("rawvideo", rate=25, width=64, height=48, pix_fmt="pal8")
        for index in range(50):
            frame = av.VideoFrame.from_ndarray((np.full((48, 64), 5 * index, np.uint8), palette), format="pal8")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    # Of QuickTime the index lies behind the frames, which this server cannot seek.
    for reading in [read(path), *([read_http(path)] if suffix == "avi" else [])]:
        colours = [sample.pixels[0, 0].tolist() for sample in reading.samples]
        assert colours == [[5 * index, 255 - 5 * index, 7] for index in (23, 48)]


def test_the_default_track_of_sound(tmp_path: Path) -> None:
    silence = np.zeros_like(burst(5))
    path = write_marked(tmp_path / "v.mkv", sounds=[silence, burst(5), silence], default=1)
    for reading in (read(path), read_http(path)):
        assert reading.bursts == near(*BURST)
        assert reading.video.tracks.audio is not None
        assert reading.video.tracks.audio.number == 1
    assert read(path, TrackNumbers(audio=2)).bursts == []
    with pytest.raises(MediaError, match="no audio track 3: its audio tracks are 0 to 2"):
        read(path, TrackNumbers(audio=3))
    # The first one where none is flagged.
    assert read(write_marked(tmp_path / "w.mkv", sounds=[silence, burst(5)], default=7)).bursts == []


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "mjpeg"), ("mov", "png"), ("mov", "mjpeg")])
def test_a_cover_picture_is_no_video(tmp_path: Path, suffix: str, codec: str) -> None:
    """Also where nothing says that it is one."""
    plain, path = write_marked(tmp_path / "v.mp4"), tmp_path / f"c.{suffix}"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        pixels = "rgb24" if codec == "png" else "yuvj420p"
        cover = target.add_stream(codec, rate=25, width=96, height=64, pix_fmt=pixels)
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 255, np.uint8), format="rgb24").reformat(format=pixels)
        target.mux([*cover.encode(frame), *cover.encode(None)])
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    reading = read(path)
    assert (reading.indices, reading.video.tracks.video.number) == (EXPECTED, 1)
    assert read(path, TrackNumbers(video=0), silent=True).samples[0].pixels.min() > 250


@pytest.mark.parametrize("suffix", ["mkv", "mov"])
def test_a_video_of_pictures_is_no_cover(tmp_path: Path, suffix: str) -> None:
    """MJPEG that is the default, beside another video."""
    path = tmp_path / f"v.{suffix}"
    pictures = write_marked(tmp_path / "p.mov", codec="mjpeg", audio=None)
    other = write_marked(tmp_path / "o.mp4", seconds=2)
    with av.open(str(pictures)) as first, av.open(str(other)) as second, av.open(str(path), "w") as target:
        for source in (first, second):
            streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            packets = [packet for packet in source.demux() if packet.size]
            if source is first:
                held = [(packet, streams) for packet in packets]
        for packet, streams_of in [*held, *((packet, streams) for packet in packets)]:
            packet.stream = streams_of[packet.stream_index]
            target.mux(packet)
    reading = read(path)
    assert (reading.video.tracks.video.codec, reading.indices) == ("mjpeg", EXPECTED)


@pytest.mark.parametrize("rate", [1, 2])
def test_a_live_source_gives_all_its_seconds(tmp_path: Path, rate: int) -> None:
    """Its decoders are emptied, and its last frame lasts as long as it is displayed."""
    path = write_marked(tmp_path / "v.mp4", seconds=10, rate=rate)
    reading = read_http(path)
    assert reading.indices == read(path).indices
    assert len(reading.samples) == 10


def test_a_live_source_keeps_what_its_tracks_state(tmp_path: Path) -> None:
    """Windows Media's sound cannot be decoded without the size of its blocks."""
    path = write_marked(tmp_path / "v.wmv", codec="wmv2", audio="wmav2")
    reading = read_http(path)
    assert (reading.bursts, reading.damage.video) == (near(*BURST), 0)


def test_unknown_codecs(tmp_path: Path) -> None:
    video = forget_codec(write_marked(tmp_path / "video.mp4", seconds=1), "video")
    for reader in (read, read_http):
        with pytest.raises(MediaError, match="no video track that can be decoded"):
            reader(video)
    both = write_marked(tmp_path / "sound.mp4", sounds=[np.zeros_like(burst(5)), burst(5)])
    forget_codec(both, "audio")
    for reading in (read(both), read_http(both)):
        assert reading.bursts == near(*BURST)
    with pytest.raises(MediaError, match=r"audio track 0 of .* cannot be decoded"):
        read(both, TrackNumbers(audio=0))
    alone = forget_codec(write_marked(tmp_path / "alone.mp4"), "audio")
    with pytest.raises(MediaError, match="no audio track that can be decoded"):
        list(read_samples(probe(alone), MANIFEST))
    assert read(alone, silent=True).indices == EXPECTED


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mpg", "wmv", "avi"])
def test_whole_files_are_not_truncated(tmp_path: Path, suffix: str) -> None:
    codecs = {"wmv": ("wmv2", "wmav2"), "mpg": ("mpeg2video", "mp2"), "avi": ("mpeg4", "mp2")}
    codec, audio = codecs.get(suffix, ("libx264", "aac"))
    longer = write_marked(tmp_path / f"s.{suffix}", codec=codec, audio=audio, sounds=[burst(9)])
    assert (read(longer).indices, read(longer).bursts) == (EXPECTED, near(*BURST))
    if suffix != "avi":  # which has no times
        late = remux(longer, tmp_path / f"l.{suffix}", keep=lambda kind, time: kind == "audio" or time > 2.2)
        assert len(read(late).samples) in {2, 3}
    if suffix in {"ts", "mpg"}:
        content = longer.read_bytes()
        for part in (7, 31, 100):
            cut = len(content) * part // 400 // 188 * 188
            (tmp_path / f"c.{suffix}").write_bytes(content[cut:])
            assert len(read(tmp_path / f"c.{suffix}").samples) >= 2


def test_sound_that_begins_late_in_training_data(tmp_path: Path) -> None:
    path = write_marked(tmp_path / "v.mp4", sounds=[burst(5)[:, 48000:]], sound_start=1)
    frames, samples = read_clip(path, 5)
    loud = np.flatnonzero(np.abs(samples[:, 0]) > 700) / 16000
    assert (round(loud[0], 1), round(loud[-1], 1)) == BURST
    reading = read(path)
    assert reading.bursts == near(*BURST)
    np.testing.assert_array_equal(frames, [sample.pixels for sample in reading.samples])


@pytest.mark.parametrize(("suffix", "audio"), [("avi", "mp2"), ("mp4", "aac")])
def test_damaged_sound(tmp_path: Path, suffix: str, audio: str) -> None:
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = write_marked(tmp_path / f"v.{suffix}", codec=codec, audio=audio)
    damage_packets(path, "audio", [20])
    with pytest.raises(MediaError, match=r"the sound of .* cannot be decoded past .*--skip-damaged"):
        read(path)
    assert read(path, silent=True).indices == EXPECTED
    reading = read(path, skip=True)
    assert (reading.indices, reading.bursts) == (EXPECTED, near(*BURST))
    assert (reading.damage.video, reading.damage.audio) == (0, 1)


def test_damaged_frames_and_a_missing_end(tmp_path: Path) -> None:
    path = write_marked(tmp_path / "v.avi", codec="mjpeg", audio="mp2")
    damage_packets(path, "video", [23, 73])
    with pytest.raises(MediaError, match="cannot be decoded past"):
        read(path)
    reading = read(path, skip=True)
    assert (reading.indices[1::2], reading.damage.video) == (EXPECTED[1::2], 2)
    whole = write_marked(tmp_path / "v.mkv")
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(MediaError, match=r"truncated|read to its end"):
        read(whole)
    reading = read(whole, skip=True)
    assert reading.indices[:2] == EXPECTED[:2]
    assert 2 <= len(reading.samples) <= 4


def test_marked_frames_are_what_they_say() -> None:
    assert marked_frame(3)[32, 48].tolist() == [grey_of(3)] * 3


def test_a_recording_without_sound_among_joined_ones(tmp_path: Path) -> None:
    """The sound has fewer steps of its clock than the video, and each piece stays with its frames."""
    loud, mute = write_marked(tmp_path / "a.ts"), write_marked(tmp_path / "m.ts", audio=None)
    for name, parts in {"first.ts": [mute, loud], "middle.ts": [loud, mute, loud]}.items():
        (tmp_path / name).write_bytes(b"".join(part.read_bytes() for part in parts))
        expected = [5 * place + edge for place, part in enumerate(parts) if part == loud for edge in BURST]
        reading = read(tmp_path / name)
        assert (reading.indices, reading.bursts) == (EXPECTED * len(parts), near(*expected))


def test_a_program_stream_that_jumps_ahead(tmp_path: Path) -> None:
    """The packet before the jump is stamped with the time after it."""
    first = write_marked(tmp_path / "a.mpg", codec="mpeg2video", audio="mp2")
    later = remux(first, tmp_path / "b.mpg", shift=lambda *_: 95.0)
    (tmp_path / "gap.mpg").write_bytes(first.read_bytes() + later.read_bytes())
    reading = read(tmp_path / "gap.mpg")
    assert (len(reading.samples), reading.bursts) == (10, near(*BURST, *(5 + edge for edge in BURST)))


@pytest.mark.parametrize("audio", ["mp2", "ac3"])
def test_sound_whose_channels_change(tmp_path: Path, audio: str) -> None:
    first = write_marked(tmp_path / "a.ts", audio=audio)
    second = write_marked(tmp_path / "b.ts", audio=audio, layout="mono", sounds=[burst(5, 1)])
    (tmp_path / "v.ts").write_bytes(first.read_bytes() + second.read_bytes())
    reading = read(tmp_path / "v.ts")
    assert (reading.indices, reading.bursts) == (EXPECTED * 2, near(*BURST, *(5 + edge for edge in BURST)))


def test_turned_videos_become_training_frames(tmp_path: Path) -> None:
    for matrix in TURNED:
        frames, _ = read_clip(write_marked(tmp_path / "v.mp4", seconds=1, matrix=matrix), 1)
        assert resize(frames[0], 32, 32).shape == (32, 32, 3)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_live_source_of_few_frames(tmp_path: Path, frames: int) -> None:
    assert len(read_http(write_marked(tmp_path / "v.mp4", seconds=frames, rate=1)).samples) == frames


def test_what_is_cut_short_is_noticed(tmp_path: Path) -> None:
    whole = write_marked(tmp_path / "v.avi", codec="mpeg4", audio="mp2")
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 4 // 10])
    with pytest.raises(MediaError, match="truncated"):
        read(whole)
    cut = write_marked(tmp_path / "v.mkv", gop=5)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    assert read(cut, skip=True).damage.cut_short


def test_a_matrix_that_ffmpeg_does_not_convert_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v.mkv"
    for matrix, readable in ((10, True), (14, False)):
        with av.open(str(path), "w") as target:
            stream = target.add_stream("libx264", rate=25, width=96, height=64, pix_fmt="yuv420p")
            stream.codec_context.colorspace = matrix
            for index in range(25):
                target.mux(stream.encode(av.VideoFrame.from_ndarray(marked_frame(index), format="rgb24")))
            target.mux(stream.encode(None))
        if readable:
            assert read(path).corners[0] == "red"
        else:
            with pytest.raises(MediaError, match="colour matrix 14 cannot be"):
                read(path)
