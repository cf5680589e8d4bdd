"""Several masks a second: each is clip mode's on the shifted clip, and the overlay shows it with its own frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import avsbg
from avsbg.runtime.backends import Backend, create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.places import Places
from avsbg.runtime.media.samples import Sample, read_samples
from avsbg.runtime.segment.interpolation import InterpolatedMasks
from avsbg.runtime.segment.masks import MaskFormat
from avsbg.runtime.segment.overlay import Timetable
from avsbg.runtime.segment.pipeline import AUTO, Options, RateOption
from avsbg.runtime.segment.rate_control import RateControl
from avsbg.runtime.segment.run import segment_video
from avsbg.runtime.segment.segmenter import ClipSegmenter, InterleavedSegmenter, Segmented, Segmenter, StreamSegmenter
from fixtures import stream_bundle, tiny_bundle
from fixtures.cli import run_avsbg
from fixtures.videos import SOUND_RATE, tone

OFFSET = 15 / 16


def run(segmenter: Segmenter, samples: list[Sample]) -> list[Segmented]:
    segmenter.reset()
    return [*(result for sample in samples for result in segmenter.push(sample)), *segmenter.finish()]


def random_samples(rate: int, seconds: int, seed: int) -> list[Sample]:
    """Samples as of a source of so many seconds, of random frames and sound."""
    random = np.random.default_rng(seed)
    places = Places(Fraction(rate), tiny_bundle.FRAMES, OFFSET, None)
    samples = []
    for number in range(rate * seconds):
        frame = random.integers(0, 256, (tiny_bundle.HEIGHT, tiny_bundle.WIDTH, 3), np.uint8)
        sound = random.uniform(-1, 1, tiny_bundle.SAMPLE_RATE).astype(np.float32)
        place = places[number]
        samples.append(Sample(number, place.deadline, Fraction(1), frame, frame, sound, place))
    return samples


@pytest.fixture(scope="module")
def backend(tiny: Bundle) -> Iterator[Backend]:
    with create("onnxruntime", tiny, threads=1) as opened:
        yield opened


@settings(max_examples=15, deadline=None)
@given(rate=st.integers(1, 7), seconds=st.integers(1, 12), seed=st.integers(0, 9))
def test_phases_are_clip_mode_on_their_own_samples(backend: Backend, rate: int, seconds: int, seed: int) -> None:
    samples = random_samples(rate, seconds, seed)
    found = run(InterleavedSegmenter(lambda: ClipSegmenter(backend)), samples)
    assert [one.sample.number for one in found] == [sample.number for sample in samples]
    for phase in range(rate):
        alone = run(ClipSegmenter(backend), [sample for sample in samples if sample.phase == phase])
        own = [one for one in found if one.sample.phase == phase]
        for ours, theirs in zip(own, alone, strict=True):
            assert ours.sample is theirs.sample
            assert np.array_equal(ours.probability, theirs.probability)


def test_no_mask_waits_for_a_phase_that_has_ended(backend: Backend) -> None:
    segmenter = InterleavedSegmenter(lambda: ClipSegmenter(backend))
    segmenter.reset()
    samples = [one for one in random_samples(2, 9, 0) if not one.phase or one.second < 2]
    steps = [[result.sample.number for result in segmenter.push(sample)] for sample in samples]
    # With the fifth sample of the first phase, its clip; the other's two wait for more, and are given up at second 4.
    assert [number for step in steps for number in step] == [0, 1, 2, 3, 4, 6, 8]
    assert [result.sample.number for result in segmenter.finish()] == [10, 12, 14, 16]


def test_the_rate_falls_at_once_and_rises_after_a_while() -> None:
    waiting = 0
    control = RateControl(6, lambda: waiting, 3)
    samples = random_samples(6, 60, 0)[: 6 * 60]
    passed: list[int] = [0] * 60
    for sample in samples:
        waiting = 3 if sample.second == 5 and sample.phase == 0 else 0
        passed[sample.second] += len(list(control.passed(iter([sample]))))
    assert passed[:5] == [6] * 5
    assert passed[6:12] == [3] * 6  # every second phase, for twice the first patience
    assert passed[15:] == [6] * 45
    assert control.left_out == 6 * 60 - sum(passed) and control.lowest == 3
    waiting = 9  # for good: one mask a second is left, and none is lost before the next sample
    last = list(control.passed(iter(samples[:18])))
    assert [sample.phase for sample in last[-2:]] == [0, 0] and control.rate == 1


@pytest.mark.parametrize(("phases", "rates"), [(12, [12, 6, 3, 1]), (30, [30, 15, 5, 1]), (7, [7, 1])])
def test_a_falling_rate_begins_no_phase(phases: int, rates: list[int]) -> None:
    waiting = 0
    control = RateControl(phases, lambda: waiting, 3)
    kept: list[set[int]] = [set() for _ in rates]
    for sample in random_samples(phases, len(rates), 0):
        waiting = 3 if sample.second and sample.phase == 0 else 0  # once a second, the network cannot follow
        kept[sample.second] |= {passed.phase for passed in control.passed(iter([sample]))}
    assert [len(of_second) for of_second in kept] == rates
    assert all(later < earlier for earlier, later in pairwise(kept))


def test_a_stream_by_clips_has_the_partners_of_clips(tiny_stream: Bundle) -> None:
    """Of clips of three: 0 with 1, 1 with 2, 2 with 1 before it, and so on in the next."""
    with create("onnxruntime", tiny_stream, graph="encode") as encode, create(
        "onnxruntime", tiny_stream, graph="decode"
    ) as decode:  # fmt: skip
        segmenter = StreamSegmenter(encode, decode, by_clips=True)
        frames = [stream_bundle.frame(10 + index) for index in range(6)]
        samples = [
            Sample(index, Fraction(index), Fraction(1), frame, frame, stream_bundle.clock(index, 1))
            for index, frame in enumerate(frames)
        ]
        pairs: list[tuple[int, int, str]] = []
        original = segmenter._segmented

        def keep(masks: list[Any]) -> Iterator[Segmented]:
            pairs.extend((mask.index, mask.partner) for mask in masks)  # type: ignore[misc]
            return original(masks)

        segmenter._segmented = keep  # type: ignore[method-assign]
        assert len(run(segmenter, samples)) == 6
    expected = [(0, "next"), (1, "next"), (2, "previous"), (3, "next"), (4, "next"), (5, "previous")]
    assert pairs == expected


def blinking(path: Path, *, seconds: int = 3, rate: int = 20) -> Path:
    """White for a quarter of a second, then black for as long, and so on; a tone throughout."""
    with av.open(str(path), "w") as target:
        picture = target.add_stream("libx264", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = 48, 32, "yuv420p"
        track = target.add_stream("pcm_f32le", rate=SOUND_RATE, layout="mono")
        sound = av.AudioFrame.from_ndarray(tone(seconds), format="flt", layout="mono")
        sound.sample_rate = SOUND_RATE
        target.mux(track.encode(sound))
        for index in range(seconds * rate):
            level = 255 if is_white(Fraction(index, rate)) else 0
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            target.mux(picture.encode(frame))
        for stream in (picture, track):
            target.mux(stream.encode(None))
    return path


def is_white(time: Fraction) -> bool:
    return int(time * 4) % 2 == 0


def tinted(path: Path) -> list[tuple[Fraction, bool, bool]]:
    """Of each frame of an overlay: its time, whether it is white, and whether it is tinted."""
    found = []
    with av.open(str(path)) as source:
        for frame in source.decode(video=0):
            red, _, blue = frame.to_ndarray(format="rgb24").mean(axis=(0, 1))
            found.append((frame.pts * frame.time_base, bool(red > 140), bool(red - blue > 60)))
    return found


def test_an_overlay_of_every_frame_follows_the_picture(tiny: Bundle, tmp_path: Path) -> None:
    video = blinking(tmp_path / "blinking.mkv")
    for rate, wrong in (("every-frame", 0), (1, 10)):
        out = tmp_path / str(rate)
        outcome = run_avsbg("run", tiny.path, video, "-o", out, "--rate", rate)
        assert outcome.code == 0, outcome.err
        frames = [frame for frame in tinted(out / "overlay.mp4") if frame[0] >= Fraction(15, 16) - Fraction(1, 20)]
        assert len(frames) >= 41
        missed = sum(is_white(time) != tint for time, _, tint in frames)
        assert missed >= wrong if wrong else missed == 0


def test_outputs_carry_the_times_of_their_frames(tiny: Bundle, tmp_path: Path) -> None:
    video = blinking(tmp_path / "blinking.mkv")
    for masks in ("png", "video"):
        outcome = run_avsbg(
            "run", tiny.path, video, "-o", tmp_path / masks, "--rate", 4, "--rle", "--masks", masks, "--no-overlay"
        )
        assert outcome.code == 0, outcome.err
    with avsbg.load(tiny.path, "onnxruntime") as model:
        frames = list(model.segment(video, rate=4))
    summary = json.loads((tmp_path / "png/summary.json").read_text())
    assert summary["rate"] == {"masks": 4.0, "asked": 4, "seconds_per_mask": None}
    assert (summary["seconds"], summary["masks"]) == (3, len(frames))
    assert summary["backend"]["phases"] == 4
    assert f"{len(frames)} masks, 4 a second" in outcome.out
    times = [frame.time for frame in frames]
    assert times == sorted(times) and times[:4] == pytest.approx([0.9, 1.15, 1.4, 1.65])
    names = sorted(path.name for path in (tmp_path / "png/masks").iterdir())
    assert names == [f"{number:06d}_{time:.3f}s.png" for number, time in enumerate(times)]
    document = json.loads((tmp_path / "png/masks.coco.json").read_text())
    assert [image["time"] for image in document["images"]] == pytest.approx(times)
    lines = [json.loads(line) for line in (tmp_path / "png/frames.jsonl").read_text().splitlines()]
    assert [line["time"] for line in lines] == pytest.approx(times)
    assert [line["second"] for line in lines[:5]] == [0, 0, 0, 0, 1]
    with av.open(str(tmp_path / "video/masks.mkv")) as source:
        stored = [float(frame.pts * frame.time_base) for frame in source.decode(video=0)]
    assert stored == pytest.approx(times, abs=0.011)  # those of the last frame follow each other by a millisecond
    for frame, time in zip(frames, times, strict=True):
        assert bool(frame.mask.mean() > 0.5) == is_white(Fraction(round(time * 20), 20))


@contextmanager
def measured(bundle: Bundle, seconds: float) -> Iterator[InterleavedSegmenter]:
    with create("onnxruntime", bundle) as opened:
        yield InterleavedSegmenter(lambda: ClipSegmenter(opened), lambda: seconds)


def test_auto_raises_the_overlay_alone_to_what_the_machine_reaches(tiny: Bundle, tmp_path: Path) -> None:
    video = blinking(tmp_path / "blinking.mkv")
    written = {}
    for seconds, rate in ((0.05, 10), (0.001, 20), (2.0, 1)):
        out = tmp_path / str(seconds)
        masks: MaskFormat
        for masks in ("png", "video"):
            options = Options(rate=AUTO, masks=masks, rle=True, probabilities=masks == "png")
            with measured(tiny, seconds) as segmenter:
                summary = segment_video(segmenter, video, out / masks, options)
        assert summary["rate"] == {"masks": rate, "asked": "auto", "seconds_per_mask": seconds}
        files = [*out.glob("png/*/*.png"), *out.glob("*/*.jsonl"), *out.glob("*/*.coco.json")]
        written[rate] = {str(path.relative_to(out)): path.read_bytes() for path in files}
        with av.open(str(out / "video/masks.mkv")) as source:
            times = [float(frame.pts * frame.time_base) for frame in source.decode(video=0)]
        assert times == [0, 1, 2]
    names = [f"png/{kind}/{second:05d}.png" for kind in ("masks", "probabilities") for second in range(3)]
    assert sorted(name for name in written[1] if name.endswith(".png")) == names
    assert written[20] == written[10] == written[1]  # whatever the machine reaches
    with measured(tiny, 0.05) as segmenter:
        summary = segment_video(segmenter, video, tmp_path / "none", Options(rate=AUTO, overlay=False))
    assert (summary["rate"]["masks"], summary["masks"]) == (1, 3)


@pytest.mark.parametrize("rate", [1, AUTO])
def test_auto_has_the_partners_of_one_mask_a_second_in_a_stream_too(
    tiny_stream: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: RateOption
) -> None:
    partners: dict[StreamSegmenter, list[str]] = {}
    original = StreamSegmenter._segmented

    def keep(self: StreamSegmenter, masks: list[Any]) -> Iterator[Segmented]:
        partners.setdefault(self, []).extend(mask.partner for mask in masks)
        return original(self, masks)

    monkeypatch.setattr(StreamSegmenter, "_segmented", keep)
    video = blinking(tmp_path / "blinking.mkv", seconds=5)  # a clip has three
    with avsbg.load(tiny_stream.path, "onnxruntime") as model:
        segmenter = model.segmenter(stream=True, rate=rate)
        if isinstance(segmenter, InterleavedSegmenter):
            segmenter.measure = lambda: 0.25
        summary = segment_video(segmenter, video, tmp_path / "out", Options(rate=rate))
    assert len(partners) == (1 if rate == 1 else 2)
    assert summary["seconds"] == 5 and next(iter(partners.values())) == ["next"] * 4 + ["previous"]


@pytest.mark.parametrize("rate", ["0", "often", "1000"])
def test_what_is_no_rate_is_an_error(tiny: Bundle, tmp_path: Path, rate: str) -> None:
    outcome = run_avsbg("run", tiny.path, tmp_path / "video.mp4", "-o", tmp_path / "out", "--rate", rate)
    assert outcome.code == 1
    assert "is no rate of masks" in outcome.paragraph and isinstance(outcome.error, MediaError)


def test_a_frame_shows_the_masks_of_its_places_one_after_the_other() -> None:
    seconds = Timetable(None)
    assert seconds.pieces(Fraction(1, 2), Fraction(5, 2)) == [(Fraction(1, 2), 0), (1, 1), (2, 2)]
    places = Places(Fraction(4), 5, OFFSET, None)
    quarters = Timetable(places)
    assert quarters.pieces(Fraction(0), Fraction(1, 2)) == [(0, 0)]  # before the first mask, the first
    assert quarters.pieces(Fraction(1, 2), Fraction(1)) == [(Fraction(1, 2), 0)]
    held = quarters.pieces(Fraction(1), Fraction(7, 4))
    assert held == [(1, 1), (places[2].deadline, 2), (places[3].deadline, 3)]
    assert quarters.pieces(Fraction(7, 4), Fraction(9, 5)) == [(Fraction(7, 4), 3)]


def test_samples_of_a_place_know_their_phase(tiny: Bundle, tmp_path: Path) -> None:
    video = probe(blinking(tmp_path / "blinking.mkv"))
    samples = list(read_samples(video, tiny.manifest, rate=Fraction(2)))
    assert [(sample.phase, sample.second) for sample in samples[:4]] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert replace(samples[0], place=None).phase == 0
    assert samples[0].pixels.shape == (32, 48, 3) and samples[1].pixels.shape == samples[1].frame.shape


def results_at(times: list[Fraction], seed: int = 0) -> list[Segmented]:
    """Random probabilities for frames at these times, a mask a second."""
    random = np.random.default_rng(seed)
    pixels, silence = np.zeros((4, 6, 3), np.uint8), np.zeros(0, np.float32)
    return [
        Segmented(Sample(number, time, Fraction(1), pixels, pixels, silence), random.random((4, 6), np.float32))
        for number, time in enumerate(times)
    ]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.fractions(Fraction(1, 20), 3, max_denominator=20), min_size=1, max_size=6),
    shares=st.lists(st.fractions(0, 1, max_denominator=8), min_size=6, max_size=6),
    seed=st.integers(0, 9),
)
def test_between_masks_probabilities_are_linear_in_time(
    steps: list[Fraction], shares: list[Fraction], seed: int
) -> None:
    times = [sum(steps[: index + 1], Fraction(0)) for index in range(len(steps))]
    results = results_at(times, seed)
    reached: list[int] = []
    masks = InterpolatedMasks(iter(results), Places(Fraction(1), 5, OFFSET, None), 0.5, (6, 4), reached.append)
    maps = [result.probability for result in results]
    assert np.array_equal(masks.at(Fraction(0), 0), maps[0] > 0.5)
    for index, (begin, end) in enumerate(pairwise(times)):
        assert np.array_equal(masks.at(begin, 0), maps[index] > 0.5)
        share = float(shares[index])
        exact = (1 - share) * maps[index].astype(float) + share * maps[index + 1].astype(float)
        wrong = masks.at(begin + shares[index] * (end - begin), 0) != (exact > 0.5)
        assert not wrong[np.abs(exact - 0.5) > 1e-6].any()
    for time in (times[-1], times[-1] + 1, times[-1] + 9):
        assert np.array_equal(masks.at(time, 0), maps[-1] > 0.5)
    assert reached == list(range(len(times)))
    assert masks.made == sum(0 < share < 1 for share in shares[: len(times) - 1])


def test_further_places_of_a_frame_lie_at_their_deadlines() -> None:
    results = results_at([Fraction(0), Fraction(0), Fraction(0), Fraction(5, 2)])
    masks = InterpolatedMasks(iter(results), Places(Fraction(1), 5, OFFSET, None), 0.5, (6, 4), lambda _: None)
    for number, time in enumerate([Fraction(0), Fraction(31, 16), Fraction(47, 16)][:2]):
        assert np.array_equal(masks.at(time, 0), results[number].probability > 0.5)
    assert masks.number == 1 and masks.made == 0


def test_interpolated_outputs_have_a_mask_for_each_frame(tiny: Bundle, tmp_path: Path) -> None:
    video = blinking(tmp_path / "blinking.mkv", rate=16)
    found = {}
    for name, more in (("both", ()), ("masks", ("--no-overlay",))):
        outcome = run_avsbg(
            "run", tiny.path, video, "-o", tmp_path / name, "--rate", 2, "--masks", "video", "--interpolate", *more
        )
        assert outcome.code == 0, outcome.err
        with av.open(str(tmp_path / name / "masks.mkv")) as source:
            found[name] = [
                (round(float(frame.pts * frame.time_base), 3), frame.to_ndarray(format="gray") > 0)
                for frame in source.decode(video=0)
            ]
    summary = json.loads((tmp_path / "both/summary.json").read_text())
    assert summary["settings"]["interpolate"] is True
    assert f"{summary['interpolated_masks']} masks between those of the network are interpolated" in outcome.out
    times = [time for time, _ in found["both"]]
    assert times == pytest.approx([index / 16 for index in range(48)], abs=0.001)
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(*found.values(), strict=True))
    assert not (tmp_path / "masks/overlay.mp4").exists() and not (tmp_path / "masks/overlay.png").exists()
    with avsbg.load(tiny.path, "onnxruntime") as model:
        network = list(model.segment(video, rate=2))
    stamps = [frame.time for frame in network]
    distinct = np.flatnonzero(np.diff(stamps, prepend=-1) > 0)  # further ones of the last frame lie beyond the video
    maps = np.stack([network[index].probability for index in distinct])
    made = 0
    for time, mask in found["both"]:
        after = int(np.searchsorted([stamps[index] for index in distinct], time - 0.002))
        low, high = max(0, after - 1), min(after, len(distinct) - 1)
        begin, end = stamps[distinct[low]], stamps[distinct[high]]
        share = 0.0 if end == begin else float(np.clip((time - begin) / (end - begin), 0, 1))
        made += 0.02 < share < 0.98  # the file's times are in milliseconds
        exact = np.float32(1 - share) * maps[low] + np.float32(share) * maps[high]
        size = mask.shape[1], mask.shape[0]
        wanted = np.asarray(Image.fromarray((exact > 0.5).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
        assert (mask != wanted).mean() < 0.01
    assert made == summary["interpolated_masks"] > 20


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--rate", "every-frame"), "nothing lies between"),
        (("--rate", "2", "--no-overlay", "--rle"), "with nothing between them"),
        (("--rate", "auto", "--masks", "video"), "leaves that to the machine"),
    ],
)
def test_interpolation_that_means_nothing_is_refused(
    tiny: Bundle, tmp_path: Path, options: tuple[str, ...], problem: str
) -> None:
    outcome = run_avsbg("run", tiny.path, tmp_path / "video.mp4", "-o", tmp_path / "out", "--interpolate", *options)
    assert outcome.code == 1
    assert problem in outcome.paragraph and isinstance(outcome.error, MediaError)
