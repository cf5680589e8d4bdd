"""Places of several masks a second: each phase is the shifted source, to the frame and the sample."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.places import HELD, Place, Places, frame_deadline, masks_a_second
from avsbg.runtime.media.samples import Sample, SoundWindows, read_samples
from fixtures.videos import SOUND_RATE, steady, write_video

OFFSET = 15 / 16
RATES = st.integers(1, 12) | st.sampled_from([Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25)])
FRAME_RATES = st.none() | st.sampled_from(
    [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(59, 2), Fraction(15, 2), Fraction(1, 3)]
)


@given(rate=RATES, frame_rate=FRAME_RATES, frames=st.integers(1, 10))
def test_each_phase_has_every_second_and_deadlines_never_step_back(
    rate: Fraction | int, frame_rate: Fraction | None, frames: int
) -> None:
    rate = Fraction(rate)
    places = Places(rate, frames, OFFSET, frame_rate)
    found = [places[number] for number in range(6 * places.phases)]
    assert [place.deadline for place in found] == sorted(place.deadline for place in found)
    for phase in range(places.phases):
        shift = phase / rate
        own = [place for place in found if place.phase == phase]
        assert [place.second for place in own] == list(range(len(own)))
        assert len(own) >= 4
        for place in own:
            assert place.begin == shift + place.second
            assert place.deadline == shift + frame_deadline(place.second, frames, frame_rate, OFFSET)
    assert places[found.index(found[-1])] == found[-1]  # an earlier one is still there


def test_places_are_not_collected_without_end() -> None:
    places = Places(Fraction(10), 5, OFFSET, None)
    assert places[HELD + 5].second == (HELD + 5) // 10
    with pytest.raises(IndexError):
        places[4]


@pytest.mark.parametrize(("rate", "frames", "meant"), [(3, None, 3), ("every-frame", Fraction(24), 24)])
def test_rates(rate: int, frames: Fraction | None, meant: int) -> None:
    assert masks_a_second(rate, frames) == meant


@pytest.mark.parametrize("rate", [0, -1, 241, "often", "every-frame", 2.5])
def test_what_is_no_rate_is_refused(rate: int) -> None:
    with pytest.raises(MediaError, match=r"no rate of masks|how many frames"):
        masks_a_second(rate, None)


@given(chunks=st.lists(st.integers(1, 40), min_size=1, max_size=6), rate=st.integers(1, 7))
def test_windows_are_slices_of_the_sound(chunks: list[int], rate: int) -> None:
    """Whatever the track's length: beyond its end the reader gives silence, as `AudioReader.read` does."""
    sample_rate = 16
    sound = np.arange(1, sum(chunks) + 1, dtype=np.float32)
    position = 0

    def read(count: int) -> np.ndarray:
        nonlocal position
        taken, position = sound[position : position + count], position + count
        return np.pad(taken, (0, count - len(taken)))

    windows, padded = SoundWindows(read, sample_rate), np.pad(sound, (0, 10 * sample_rate))
    places = Places(Fraction(rate), 5, OFFSET, None)
    for number in range(5 * rate):
        place = places[number]
        begin = round(Fraction(place.phase, rate) * sample_rate) + place.second * sample_rate
        assert np.array_equal(windows.read(place, Fraction(1)), padded[begin : begin + sample_rate])


def sweep(seconds: float) -> np.ndarray:
    """A tone that rises slowly, so that no two places are alike: a part of a sample changes it by less than 0.02."""
    time = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    return (0.9 * np.sin(2 * np.pi * (20 + 3 * time) * time)).astype(np.float32)[None]


def samples_of(bundle: Bundle, path: Path, rate: Fraction = Fraction(1)) -> list[Sample]:
    return list(read_samples(probe(path), bundle.manifest, rate=rate))


def assert_phases_are_shifted_clips(
    bundle: Bundle, folder: Path, times: list[Fraction], frame_rate: Fraction, rate: int
) -> None:
    """Write the video, and for each phase the video from its shift on: its samples are those of the phase."""
    sound = sweep(float(times[-1]) + 1)
    video = write_video(folder / "whole.mkv", times=times, rate=frame_rate, size=(16, 16), sound=sound)
    whole = samples_of(bundle, video, Fraction(rate))
    assert [sample.number for sample in whole] == list(range(len(whole)))
    for phase in range(rate):
        shift = Fraction(phase, rate)
        first = bisect_right(times, shift) - 1  # the frame that is displayed at the shift is the clip's first
        moved = [max(Fraction(0), time - shift) for time in times[first:]]
        cut = sound[:, round(shift * SOUND_RATE) :]
        path = write_video(folder / "shifted.mkv", times=moved, rate=frame_rate, size=(16, 16), sound=cut)
        alone = samples_of(bundle, path)
        if phase and alone[0].length < Fraction(1, 2):  # of a video itself there is always one
            alone = []
        own = [sample for sample in whole if sample.phase == phase]
        assert [sample.second for sample in own] == [sample.number for sample in alone]
        for ours, theirs in zip(own, alone, strict=True):
            # The shifted file's grey levels begin anew with its first frame.
            level = round(float(theirs.frame.mean()) / 5)
            assert round(float(ours.frame.mean()) / 5) == (level + first) % 50
            assert abs(ours.length - theirs.length) < Fraction(1, 500)  # times of .mkv are rounded
            inner = slice(100, min(len(ours.audio), len(theirs.audio)) - 100)  # the resampler's ends differ
            assert np.abs(ours.audio[inner] - theirs.audio[inner]).max(initial=0) < 0.02


# Rates of masks that divide those of frames: the shifted file then begins with a frame of the whole one.
DIVISORS = st.sampled_from([(10, 2), (10, 5), (20, 4), (24, 3), (24, 6), (30, 5)])


@settings(max_examples=8, deadline=None)
@given(rates=DIVISORS, frames=st.integers(15, 140))
def test_a_phase_is_the_shifted_clip_at_a_constant_rate(tiny: Bundle, rates: tuple[int, int], frames: int) -> None:
    frame_rate, rate = rates
    with TemporaryDirectory() as folder:
        times = steady(frame_rate, frames)
        assert_phases_are_shifted_clips(tiny, Path(folder), times, Fraction(frame_rate), rate)


@settings(max_examples=8, deadline=None)
@given(gaps=st.lists(st.integers(8, 400), min_size=12, max_size=40), rate=st.sampled_from([2, 4, 5]))
def test_a_phase_is_the_shifted_clip_at_a_variable_rate(tiny: Bundle, gaps: list[int], rate: int) -> None:
    """Frames between 8 and 400 ms apart."""
    times = [Fraction(0), *(Fraction(int(total), 1000) for total in np.cumsum(gaps))]
    with TemporaryDirectory() as folder:
        assert_phases_are_shifted_clips(tiny, Path(folder), times, Fraction(25), rate)


def test_every_frame_of_a_film_has_a_mask(tiny: Bundle, tmp_path: Path) -> None:
    """At 23.976 frames a second and as many phases, from the first second's frame on, none is left out."""
    rate = Fraction(24000, 1001)
    path = write_video(tmp_path / "film.mkv", times=steady(rate, 130), rate=rate, size=(16, 16), sound=sweep(6))
    video = probe(path)
    found = list(read_samples(video, tiny.manifest, rate=masks_a_second("every-frame", video.rate)))
    frames = {round(sample.time * rate) for sample in found}
    assert frames == set(range(22, 130))
    assert len(found) - len(frames) <= 13  # those beyond the end, for which the last frame stands


def test_a_single_phase_is_the_video_itself(tiny: Bundle, tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", times=steady(25, 60), size=(16, 16), sound=sweep(3))
    whole = samples_of(tiny, path, Fraction(5))
    for one, other in zip((sample for sample in whole if not sample.phase), samples_of(tiny, path), strict=True):
        assert np.array_equal(one.pixels, other.pixels) and np.array_equal(one.audio, other.audio)
    assert [place.phase for place in islice((sample.place for sample in whole if sample.place), 5)] == [0, 1, 2, 3, 4]
    assert isinstance(whole[0].place, Place)
