"""Frame choice, sound and the ways in which a file can be bad."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.audio import Aligner, AudioReader, align_audio
from avsbg.runtime.media.container import VideoInfo, open_media, probe
from avsbg.runtime.media.samples import Sample
from fixtures import videos
from fixtures.videos import grey_of, read_mute, steady, tone, write_video

NTSC = Fraction(30000, 1001)


def index_of(sample: Sample) -> int:
    """The index of the frame (modulo 50), by its grey level."""
    return round(float(sample.pixels.mean()) / grey_of(1))


def read_audio(video: VideoInfo, samples: int) -> np.ndarray:
    """The first samples at 16 kHz."""
    with AudioReader(video, 16000) as audio:
        return audio.read(samples)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30), NTSC, Fraction(24000, 1001), Fraction(8), Fraction(1)])
def test_the_published_frame_choice(tmp_path: Path, rate: Fraction, suffix: str) -> None:
    """SPEC: with f the rounded rate, second l of a five-second clip is frame int(l * f + 15/16 * f)."""
    video = probe(write_video(tmp_path / f"v.{suffix}", times=steady(rate, int(5 * rate) + 1), rate=rate))
    # Of six frames in a second each, Matroska's demuxer does not say how regular they are.
    assert video.rate == rate or (suffix, rate) == ("mkv", 1)
    chosen = [index_of(sample) for sample in read_mute(video)]
    f = round(rate)
    assert chosen[:5] == [int(second * f + 15 / 16 * f) % 50 for second in range(5)]


def test_clips_stay_with_the_clock_at_a_fractional_rate(tmp_path: Path) -> None:
    """At 29.97 fps the published index drifts by a frame in 33 s; choosing per clip it never does."""
    video = probe(write_video(tmp_path / "v.mp4", times=steady(NTSC, 1200), rate=NTSC, size=(16, 16)))
    samples = read_mute(video)
    assert len(samples) == 40
    for sample in samples:
        assert sample.number + 0.85 < sample.time < sample.number + 1


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_takes_the_frame_that_is_shown(tmp_path: Path, suffix: str) -> None:
    times = [Fraction(text) for text in ("0", "0.1", "0.9", "0.95", "1.2", "1.5", "3.5", "3.93", "3.96", "4.4")]
    video = probe(write_video(tmp_path / f"v.{suffix}", times=times))
    # A Matroska header may state a rate all the same; the choice goes by time stamps in either case.
    assert (video.rate is None) == (suffix == "mp4")
    chosen = read_mute(video)
    # At 0.9375 s the frame of 0.9 is shown, at 1.9375 and 2.9375 that of 1.5, at 3.9375 that of 3.93.
    assert [index_of(sample) for sample in chosen] == [2, 5, 5, 7]
    assert [round(float(sample.time), 3) for sample in chosen] == [0.9, 1.5, 1.5, 3.93]


@pytest.mark.parametrize(
    ("frames", "seconds", "last_length"),
    [(1, 1, 0.04), (10, 1, 0.4), (25, 1, 1), (37, 1, 1), (38, 2, 0.52), (132, 5, 1), (149, 6, 0.96)],
)
def test_a_last_second_counts_if_half_of_it_is_there(
    tmp_path: Path, frames: int, seconds: int, last_length: float
) -> None:
    video = probe(write_video(tmp_path / "v.mp4", times=steady(25, frames)))
    chosen = read_mute(video)
    assert len(chosen) == seconds
    assert float(chosen[-1].length) == pytest.approx(last_length, abs=1e-6)
    assert index_of(chosen[-1]) == min((seconds - 1) * 25 + 23, frames - 1) % 50


def test_a_real_video() -> None:
    video = probe(videos.real_video())
    assert (video.width, video.height, video.rate, video.has_audio) == (1280, 720, 25, True)
    assert [round(sample.time * 25) for sample in read_mute(video)] == [23, 48, 73, 98, 123]
    with AudioReader(video, 16000) as audio:
        assert len(audio.read(84992)) == 84992


def test_sound_is_resampled_and_followed_by_silence(tmp_path: Path) -> None:
    video = probe(write_video(tmp_path / "v.mkv", times=steady(25, 75), sound=tone(2, amplitude=0.5)))
    with AudioReader(video, 16000) as audio:
        first, second, rest = audio.read(12345), audio.read(16000), audio.read(19655)
        assert len(audio.read(10)) == 10
    assert first.dtype == np.float32
    heard = np.concatenate([first, second, rest])
    time = np.arange(48000) / 16000
    expected = 0.5 * np.sin(2 * np.pi * 440 * time) * (time < 2)
    np.testing.assert_allclose(heard[100:31900], expected[100:31900], atol=2e-3)
    assert np.abs(heard[32100:]).max() < 1e-6


def test_channels_are_averaged(tmp_path: Path) -> None:
    """FFmpeg's downmix would weigh the six channels differently."""
    channels = np.zeros((6, 48000), np.float32)
    channels[3] = 0.6  # the low-frequency channel, which FFmpeg's downmix drops
    video = probe(write_video(tmp_path / "v.mkv", times=steady(25, 25), sound=channels, layout="5.1"))
    heard = read_audio(video, 16000)
    np.testing.assert_allclose(heard[200:-200], 0.1, atol=1e-3)


@pytest.mark.parametrize(("start", "first_sound"), [(Fraction(1, 2), 0.5), (Fraction(0), 0.0)])
def test_sound_that_starts_later_than_the_picture(tmp_path: Path, start: Fraction, first_sound: float) -> None:
    path = write_video(tmp_path / "v.mkv", times=steady(25, 50), sound=tone(1), sound_start=start)
    heard = read_audio(probe(path), 32000)
    assert np.flatnonzero(np.abs(heard) > 0.1)[0] / 16000 == pytest.approx(first_sound, abs=0.01)


def test_sound_that_starts_before_the_picture(tmp_path: Path) -> None:
    sound = np.concatenate([tone(0.5), np.zeros((1, 48000), np.float32)], axis=1)
    times = [time + Fraction(1, 4) for time in steady(25, 50)]
    video = probe(write_video(tmp_path / "v.mkv", times=times, sound=sound))
    assert video.start == Fraction(1, 4)
    heard = read_audio(video, 32000)
    assert np.flatnonzero(np.abs(heard) > 0.1)[-1] / 16000 == pytest.approx(0.25, abs=0.01)
    assert read_mute(video)[0].time == Fraction(23, 25)


def pieces(*parts: tuple[str, np.ndarray], unit: Fraction = Fraction(1, 48000)) -> list[av.AudioFrame]:
    """Sound frames of 1024 samples, each part from its own time stamp on; time stamps are in `unit`, seconds."""
    frames = []
    for begin, sound in parts:
        for start in range(0, sound.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[:, start : start + 1024]), "fltp", "mono")
            frame.sample_rate, frame.time_base = 48000, unit
            frame.pts = round((round(Fraction(begin) * 48000) + start) / (48000 * unit))
            frames.append(frame)
    return frames


@pytest.mark.parametrize(
    ("parts", "loud"),
    [
        ((("0", 1.0), ("1.5", 1.0)), [(0, 1), (1.5, 2.5)]),  # a gap
        ((("0", 1.0), ("0.5", 1.0)), [(0, 1.5)]),  # an overlap
        ((("0", 1.0), ("1.05", 1.0)), [(0, 2)]),  # jitter
        ((("-2", 1.0), ("0.25", 1.0)), [(0.25, 1.25)]),  # a gap that the start lies in
        ((("-0.5", 1.0),), [(0, 0.5)]),
    ],
)
def test_sound_keeps_to_its_time_stamps(parts: tuple[tuple[str, float], ...], loud: list[tuple[float, float]]) -> None:
    sounds = [(begin, np.full((1, round(length * 48000)), 0.5, np.float32)) for begin, length in parts]
    heard = np.concatenate(list(align_audio(pieces(*sounds), "test", Fraction(0), 16000)))
    # If a time stamp is not the number of a sample, each is compared with the clock.
    finer = pieces(*sounds, unit=Fraction(1, 96000))
    np.testing.assert_array_equal(np.concatenate(list(align_audio(finer, "test", Fraction(0), 16000))), heard)
    expected = np.zeros(round(loud[-1][1] * 16000))
    for begin, end in loud:
        expected[round(begin * 16000) : round(end * 16000)] = 0.5
    assert len(heard) == pytest.approx(len(expected), abs=2)
    different = np.abs(heard[: len(expected)] - expected[: len(heard)]) > 0.01
    assert different.sum() < 40 * len(parts)  # the resampler's filter at the edges


@pytest.mark.parametrize("suffix", ["real", "mp4", "mkv"])
def test_channels_are_averaged_and_resampled_in_any_order_and_pieces(tmp_path: Path, suffix: str) -> None:
    """Against resampling every channel of every frame by itself and averaging then."""
    path = videos.real_video()
    if suffix != "real":  # compressed, float by planes, and PCM, float interleaved
        noise = np.random.default_rng(0).normal(0, 0.1, (6, 48000)).astype(np.float32)
        path = write_video(tmp_path / f"v.{suffix}", times=steady(25, 25), sound=noise, layout="5.1")
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    assert frames[0].layout.nb_channels == 6
    resampler = av.AudioResampler(format="fltp", rate=16000)
    plain = [piece.to_ndarray().mean(axis=0) for frame in [*frames, None] for piece in resampler.resample(frame)]
    expected = np.concatenate(plain)
    start = frames[0].pts * frames[0].time_base
    many = list(align_audio(frames, "test", start, 16000))
    one_by_one = Aligner("test", start, 16000)
    single = [block for frame in frames for block in one_by_one.push(frame)] + list(one_by_one.finish())
    np.testing.assert_array_equal(np.concatenate(many), np.concatenate(single))
    np.testing.assert_allclose(np.concatenate(many), expected, rtol=0, atol=1e-7)
    if suffix != "mkv":
        assert len(many) < len(single) / 10


def test_the_rate_of_sound_may_not_change() -> None:
    frames = pieces(("0", tone(0.1)), ("0.1", tone(0.1)))
    for frame in frames[5:]:
        frame.sample_rate = 44100
    with pytest.raises(MediaError, match="the sound of test cannot be resampled"):
        list(align_audio(frames, "test", Fraction(0), 16000))


def test_a_gap_of_hours_is_a_damaged_time_stamp() -> None:
    frames = pieces(("0", tone(0.1)), ("7200", tone(0.1)))
    with pytest.raises(MediaError, match="gap of 7200 s"):
        list(align_audio(frames, "test", Fraction(0), 16000))


def test_missing_sound_says_how_to_go_on(tmp_path: Path) -> None:
    video = probe(write_video(tmp_path / "v.mp4", times=steady(25, 25)))
    with pytest.raises(MediaError, match=r"no audio track.*--no-sound"):
        AudioReader(video, 16000)


def test_missing_file_folder_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"there is no video at .*nowhere\.mp4"):
        probe(tmp_path / "nowhere.mp4")
    with pytest.raises(MediaError, match="not a file"):
        probe(tmp_path)
    for content in (b"", b"hello", bytes(range(256)) * 100):
        (tmp_path / "v.mp4").write_bytes(content)
        with pytest.raises(MediaError, match=r"v\.mp4 cannot be read as a video"):
            probe(tmp_path / "v.mp4")


def test_a_file_without_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.wav"), "w") as target:
        stream = target.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16000
        target.mux(stream.encode(frame))
    with pytest.raises(MediaError, match="no video track"):
        probe(tmp_path / "a.wav")


def test_a_playlist_does_not_reach_the_network(tmp_path: Path) -> None:
    (tmp_path / "v.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/segment.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        probe(tmp_path / "v.m3u8")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("kept", [0.2, 0.6])
def test_truncated(tmp_path: Path, suffix: str, kept: float) -> None:
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 4 * 48000)).astype(np.float32)
    path = write_video(tmp_path / f"v.{suffix}", times=steady(25, 100), sound=noise, options=options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(MediaError, match=r"truncated|cannot be (read|decoded)") as caught:
        read_mute(probe(path))
    assert caught.value.hint


@pytest.mark.parametrize("options", [{"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_an_mp4_file_that_ends_inside_its_last_packet(tmp_path: Path, options: dict[str, str]) -> None:
    """Half a frame is missing, far less than the tolerance of the stated duration; its index knows better."""
    path = write_video(tmp_path / "v.mp4", times=steady(25, 50), options=options)
    assert len(read_mute(probe(path))) == 2
    with av.open(str(path)) as container:
        last = max((packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)
    path.write_bytes(path.read_bytes()[: last[0] + last[1] // 2])
    with pytest.raises(MediaError, match="truncated"):
        read_mute(probe(path))


def test_turned_video_is_shown_upright(tmp_path: Path) -> None:
    """A phone's display matrix of 90 degrees, written into the track header of an MP4 file."""
    path = write_video(tmp_path / "v.mp4", times=steady(25, 25), size=(64, 48))
    content = bytearray(path.read_bytes())
    identity = b"".join(value.to_bytes(4, "big") for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turned = b"".join(
        (value % 2**32).to_bytes(4, "big") for value in (0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    )
    place = content.index(identity, content.index(b"tkhd"))
    content[place : place + 36] = turned
    path.write_bytes(content)
    with open_media(path) as container:
        assert abs(next(container.decode(video=0)).rotation) == 90
    video = probe(path)
    assert (video.width, video.height) == (48, 64)
