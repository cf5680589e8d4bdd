"""The files that `avsbg run` writes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.errors import AvsbgError, MediaError
from avsbg.runtime.media.audio import AudioReader
from avsbg.runtime.media.container import probe
from avsbg.runtime.segment import overlay
from avsbg.runtime.segment.overlay import ContactSheet, decode_all, write_overlay
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.run import segment_video
from avsbg.runtime.segment.segmenter import ClipSegmenter
from fixtures import tiny_bundle
from fixtures.odd_videos import BURST, burst, damage_packets, write_marked
from fixtures.videos import real_video, steady, tone, write_video


def segment(bundle: Bundle, path: Path, output: Path, **options: Any) -> dict[str, Any]:
    call = {name: options.pop(name) for name in ("replace", "progress") if name in options}
    with create("onnxruntime", bundle) as backend:
        return segment_video(ClipSegmenter(backend), path, output, Options(**options), **call)


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "frames.jsonl").read_text().splitlines()]


def loud_then_quiet(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    """Seven seconds, loud for the first four; the picture is grey level 240 at every second's chosen frame."""
    sound = np.concatenate([tone(4), np.zeros((1, 3 * 48000), np.float32)], axis=1)
    # Frame 48 of every 50 has level 240; at 50 fps the chosen frame of second l is l * 50 + 46: shift by two.
    return write_video(path, times=steady(50, 350), rate=50, size=size, sound=sound)


def test_masks_follow_the_network(tiny: Bundle, tmp_path: Path) -> None:
    calls = []
    summary = segment(
        tiny, loud_then_quiet(tmp_path / "v.mp4"), tmp_path / "out", probabilities=True,
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "frames.jsonl", "masks", "overlay.mp4", "overlay.png", "probabilities", "summary.json",
    ]  # fmt: skip
    for second in range(7):
        mask = np.asarray(Image.open(tmp_path / f"out/masks/{second:05d}.png"))
        assert mask.shape == (48, 64)
        assert set(np.unique(mask)) == {255 if second < 4 else 0}
        probability = np.asarray(Image.open(tmp_path / f"out/probabilities/{second:05d}.png"))
        assert probability.shape == (16, 24)
        assert (probability > 127).all() == (second < 4)
    assert len(list((tmp_path / "out/masks").iterdir())) == 7
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary
    assert [line["mask_area"] for line in lines(tmp_path / "out")] == [1, 1, 1, 1, 0, 0, 0]
    assert [line["second"] for line in lines(tmp_path / "out")] == list(range(7))
    assert (summary["seconds"], summary["sounding_seconds"]) == (7, 4)
    assert summary["mean_mask_area"] == pytest.approx(4 / 7)
    assert summary["video"]["sha256"] == sha256(tmp_path / "v.mp4")
    assert summary["bundle"]["manifest_sha256"] == sha256(tiny.path / "manifest.json")
    assert summary["backend"]["providers"] == ["CPUExecutionProvider"]
    assert set(summary["seconds_spent"]) == {"decode", "inference", "write_masks", "overlay", "total"}
    assert [call for call in calls if call[0] == "segmenting"] == [("segmenting", done, 7) for done in range(8)]
    assert calls[-1] == ("overlay", 7, 7)


def test_the_overlay_plays_with_its_sound(tiny: Bundle, tmp_path: Path) -> None:
    segment(tiny, loud_then_quiet(tmp_path / "v.mp4"), tmp_path / "out")
    made = probe(tmp_path / "out/overlay.mp4")
    assert (made.width, made.height, made.has_audio, made.rate) == (64, 48, True, 50)
    with av.open(str(tmp_path / "out/overlay.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        frames = list(container.decode(video=0))
        assert len(frames) == 350
        # Red exceeds blue where the tint is: in the first four seconds.
        red = np.array([np.subtract(*frame.to_ndarray(format="rgb24").mean((0, 1))[[0, 2]]) for frame in frames])
        assert (red[:200] > 50).all()
        assert (np.abs(red[200:]) < 10).all()
    with av.open(str(tmp_path / "out/overlay.mp4")) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert len(heard) / 48000 == pytest.approx(7, abs=0.1)
        assert np.abs(heard[: 3 * 48000]).max() > 0.5
        assert np.abs(heard[5 * 48000 :]).max() < 0.01


def test_each_second_of_the_overlay_has_its_own_mask(tmp_path: Path) -> None:
    video = probe(write_video(tmp_path / "v.mp4", times=steady(10, 26), rate=10))

    masks = iter([(second, np.full((48, 64), second == 1)) for second in (0, 1)])
    done: list[int] = []
    write_overlay(video, decode_all(video), tmp_path / "o.mp4", masks, progress=done.append)
    with av.open(str(tmp_path / "o.mp4")) as container:
        pixels = [frame.to_ndarray(format="rgb24").mean((0, 1)) for frame in container.decode(video=0)]
    # The last half second has no mask of its own and keeps the one before.
    assert [value[0] - value[2] > 50 for value in pixels] == [False] * 10 + [True] * 16
    assert done == [0, 1, 2]


def test_odd_sizes_and_variable_rates(tiny: Bundle, tmp_path: Path) -> None:
    times = [Fraction(index**2, 60) for index in range(12)]
    sound = tone(2, channels=2)
    path = write_video(
        tmp_path / "v.mkv", times=times, size=(61, 45), pixel_format="yuv444p", sound=sound, layout="stereo"
    )
    segment(tiny, path, tmp_path / "out")
    assert Image.open(tmp_path / "out/masks/00000.png").size == (61, 45)
    with av.open(str(tmp_path / "out/overlay.mp4")) as container:
        frames = list(container.decode(video=0))
    assert (frames[0].width, frames[0].height) == (62, 46)
    # The last frame, which begins at 2.02 s, is displayed on its own; the others that cross a second are repeated.
    expected = sorted({*times, Fraction(1), Fraction(2)})
    np.testing.assert_allclose([frame.time for frame in frames], [float(time) for time in expected], atol=2e-3)


def test_a_silent_track_works_and_no_track_needs_silent(tiny: Bundle, tmp_path: Path) -> None:
    silence = np.zeros((1, 48000), np.float32)
    quiet = write_video(tmp_path / "quiet.mp4", times=steady(25, 25), sound=silence)
    assert segment(tiny, quiet, tmp_path / "quiet")["sounding_seconds"] == 0
    mute = write_video(tmp_path / "mute.mp4", times=steady(25, 25))
    with pytest.raises(MediaError, match="--no-sound"):
        segment(tiny, mute, tmp_path / "mute")
    assert not (tmp_path / "mute").exists()
    summary = segment(tiny, mute, tmp_path / "mute", silent=True)
    assert summary["settings"]["silent"]
    assert not summary["video"]["has_sound"]
    assert not probe(tmp_path / "mute/overlay.mp4").has_audio


def test_a_video_shorter_than_a_second(tiny: Bundle, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", times=steady(25, 3), sound=tone(0.12))
    summary = segment(tiny, path, tmp_path / "out")
    assert summary["seconds"] == 1
    assert len(list((tmp_path / "out/masks").iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "embedding", "threshold", "exists", "backend", "nan", "encoder"])
def test_nothing_is_half_written(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    bundle, options, call, output = tiny, {}, {}, tmp_path / "work" / "out"
    output.parent.mkdir()
    path = write_video(tmp_path / "v.mkv", times=steady(25, 200), sound=tone(8))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    elif damage == "embedding":
        bundle = tiny_bundle.make_bundle(tmp_path / "bundle", audio="audio_embedding", vectors=False)
    elif damage == "threshold":
        options = {"threshold": 1.5}
    elif damage == "exists":
        output.mkdir()
        call = {"replace": True}
    with create("onnxruntime", bundle) as backend:
        if damage == "backend":
            backend._session = None  # type: ignore[attr-defined]
        elif damage == "nan":
            lost = np.full((1, 5, 16, 24), np.nan, np.float32)
            monkeypatch.setattr(backend, "_run", lambda *_: {"probability": lost})
        elif damage == "encoder":
            monkeypatch.setattr(overlay, "SOUND_RATE", 12345)  # a rate that AAC does not have
        with pytest.raises(AvsbgError) as caught:
            segment_video(ClipSegmenter(backend), path, output, Options(**options), **call)
    assert len(str(caught.value)) < 500
    assert not list(output.glob("*"))
    assert [entry.name for entry in output.parent.iterdir()] == (["out"] if damage == "exists" else [])


def test_paths_with_a_colon(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes what precedes a colon for a protocol, if it comes before any slash."""
    monkeypatch.chdir(tmp_path)
    path = write_video(Path("./a:b.mkv").resolve(), times=steady(25, 50), sound=tone(2)).relative_to(tmp_path)
    segment(tiny, path, Path("run:1"), masks="video", rle=True)
    assert {"masks.mkv", "overlay.mp4", "masks.coco.json"} < {one.name for one in Path("run:1").iterdir()}
    video = probe(Path("run:1/overlay.mp4"))
    write_overlay(video, decode_all(video), Path("o:1.mp4"), iter([]), progress=lambda _: None)
    assert probe(Path("o:1.mp4")).has_audio


def test_an_earlier_run_is_replaced_when_asked(tiny: Bundle, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", times=steady(25, 50), sound=tone(2))
    segment(tiny, path, tmp_path / "out")
    (tmp_path / "out/old").touch()
    with pytest.raises(MediaError, match=r"exists already.*--overwrite"):
        segment(tiny, path, tmp_path / "out")
    segment(tiny, path, tmp_path / "out", replace=True)
    assert not (tmp_path / "out/old").exists()


def test_a_real_video_with_surround_sound(tiny: Bundle, tmp_path: Path) -> None:
    summary = segment(tiny, real_video(), tmp_path / "out", threshold=0.2)
    assert summary["seconds"] == 5
    assert [line["time"] for line in lines(tmp_path / "out")] == [0.92, 1.92, 2.92, 3.92, 4.92]
    assert Image.open(tmp_path / "out/masks/00004.png").size == (1280, 720)
    assert Image.open(tmp_path / "out/overlay.png").size == (5 * 320, 180)


# All seconds, and those that a live source left.
@pytest.mark.parametrize(("seconds", "size"), [(range(200), (5 * 16, 5 * 9)), (range(1, 83, 2), (16, 9))])
def test_a_long_videos_contact_sheet_stays_small(tmp_path: Path, seconds: range, size: tuple[int, int]) -> None:
    sheet = ContactSheet()
    for second in seconds:
        sheet.add(second, np.zeros((9, 16, 3), np.uint8), np.zeros((9, 16), bool))
    sheet.save(tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == size


def test_tracks_and_damage_stand_in_the_summary(tiny: Bundle, tmp_path: Path) -> None:
    path = write_marked(tmp_path / "v.avi", seconds=2, codec="mpeg4", audio="mp2", sounds=[burst(2), burst(2)])
    damage_packets(path, "audio", [20])
    with create("onnxruntime", tiny) as backend:
        segmenter = ClipSegmenter(backend)
        with pytest.raises(MediaError, match="--skip-damaged"):
            segment_video(segmenter, path, tmp_path / "a", Options())
        other = segment_video(segmenter, path, tmp_path / "b", Options(audio_track=1, overlay=False))["video"]
        assert (other["tracks"]["audio"]["number"], other["tracks"]["audio"]["codec"]) == (1, "mp2")
        assert other["damaged"] == {"video": 0, "audio": 0, "cut_short": False}
        skipped = segment_video(segmenter, path, tmp_path / "c", Options(skip_damaged=True))
        assert (skipped["seconds"], skipped["video"]["damaged"]["audio"]) == (2, 1)
        assert skipped["settings"]["skip_damaged"]
        # Sound that is not asked for is no reason to refuse the file; the overlay goes without what is damaged.
        silent = segment_video(segmenter, path, tmp_path / "d", Options(silent=True))
        assert (silent["seconds"], silent["video"]["damaged"]["audio"]) == (2, 1)
        assert probe(tmp_path / "d/overlay.mp4").has_audio


@pytest.mark.parametrize("suffix", ["ts", "wmv"])
def test_overlays_of_joined_recordings_and_of_sound_without_time_stamps(
    tiny: Bundle, tmp_path: Path, suffix: str
) -> None:
    codecs = {"ts": ("libx264", "aac"), "wmv": ("wmv2", "wmav2")}[suffix]
    path = write_marked(tmp_path / f"v.{suffix}", seconds=3, codec=codecs[0], audio=codecs[1])
    parts = 2 if suffix == "ts" else 1
    path.write_bytes(path.read_bytes() * parts)
    with create("onnxruntime", tiny) as backend:
        segment_video(ClipSegmenter(backend), path, tmp_path / "out", Options(masks="none"))
    with AudioReader(probe(tmp_path / "out/overlay.mp4"), 16000) as audio:
        heard = np.flatnonzero(np.abs(audio.read(parts * 48000)) > 0.02) / 16000
    for part in range(parts):
        within = heard[(heard >= 3 * part) & (heard < 3 * part + 3)] - 3 * part
        assert (within[0], within[-1]) == pytest.approx(BURST, abs=0.06)


def test_overlays_of_sources_that_change(tiny: Bundle, tmp_path: Path) -> None:
    """In size, and from stereo to mono; and of AVI, whose unit of time is coarser than a packet of AAC."""
    first = write_marked(tmp_path / "a.ts", seconds=1, audio="ac3", sounds=[burst(1)])
    mono = write_marked(tmp_path / "b.ts", seconds=1, audio="ac3", layout="mono", sounds=[burst(1, 1)])
    small = write_video(tmp_path / "c.ts", times=steady(25, 25), size=(64, 48))
    changing = tmp_path / "v.ts"
    changing.write_bytes(b"".join(path.read_bytes() for path in (first, mono, small)))
    coarse = write_marked(tmp_path / "v.avi", seconds=2, codec="mpeg4", audio="ac3", sounds=[burst(2)])
    with create("onnxruntime", tiny) as backend:
        for path, seconds in ((changing, 3), (coarse, 2)):
            output = tmp_path / f"out-{path.name}"
            assert segment_video(ClipSegmenter(backend), path, output, Options())["seconds"] == seconds
            made = probe(output / "overlay.mp4")
            assert (made.width, made.height, made.has_audio) == (96, 64, True)
