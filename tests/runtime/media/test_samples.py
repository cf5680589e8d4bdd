"""From a video to the arrays that a graph takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.log_mel import log_mel
from avsbg.runtime.media.samples import Sample, check_inputs, clip_inputs, read_clips, repeat_last_patch, resize
from fixtures import tiny_bundle
from fixtures.videos import grey_of, steady, tone, write_video


def read(bundle: Bundle, path: Path, *, silent: bool = False) -> list[list[Sample]]:
    return list(read_clips(probe(path), bundle.manifest, silent=silent))


def inputs(bundle: Bundle, path: Path, *, silent: bool = False) -> list[dict[str, np.ndarray]]:
    """The inputs of the graph for each clip of a video."""
    return [clip_inputs(clip, bundle.manifest, bundle.graph()) for clip in read(bundle, path, silent=silent)]


def test_clips_follow_each_other(tiny: Bundle, tmp_path: Path) -> None:
    loudness = np.repeat(np.linspace(0.1, 0.8, 8), 48000)[None].astype(np.float32)
    path = write_video(tmp_path / "v.mkv", times=steady(10, 80), rate=10, sound=loudness)
    assert [[sample.number for sample in clip] for clip in read(tiny, path)] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    first, second = inputs(tiny, path)
    assert first["frames"].shape == second["frames"].shape == (1, 5, 16, 24, 3)
    assert first["frames"].dtype == np.uint8
    greys = np.concatenate([first["frames"], second["frames"]], axis=1)[0, :, 8, 12, 0]
    chosen = [9, 19, 29, 39, 49, 59, 69, 79, 79, 79]
    np.testing.assert_allclose(greys, [grey_of(index) for index in chosen], atol=3)
    heard = np.concatenate([first["waveform"], second["waveform"]], axis=1)[0].reshape(10, 16000)
    np.testing.assert_allclose(heard[:, 8000], [*np.linspace(0.1, 0.8, 8), 0.8, 0.8], atol=0.01)


def test_the_sound_of_the_last_clip_repeats_its_last_patch(tiny: Bundle, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 4 * 48000)).astype(np.float32)
    path = write_video(tmp_path / "v.mkv", times=steady(25, 80), sound=sound)
    (clip,), (arrays,) = read(tiny, path), inputs(tiny, path)
    assert len(clip) == 3
    waveform = arrays["waveform"][0]
    np.testing.assert_array_equal(waveform, repeat_last_patch(waveform[: 3 * 16000], 80000))
    patches = log_mel(waveform)
    np.testing.assert_allclose(patches[3, :, :94], patches[2, :, :94], atol=1e-6)
    np.testing.assert_allclose(patches[4], patches[3], atol=1e-6)


def test_sound_that_ends_before_the_picture_becomes_silence(tiny: Bundle, tmp_path: Path) -> None:
    (arrays,) = inputs(tiny, write_video(tmp_path / "v.mkv", times=steady(25, 125), sound=tone(2)))
    assert np.abs(arrays["waveform"][0, :31000]).max() > 0.5
    assert np.abs(arrays["waveform"][0, 33000:]).max() < 1e-6


def test_silent_needs_no_sound_and_silences_what_there_is(tiny: Bundle, tmp_path: Path) -> None:
    for sound in (None, tone(1)):
        (arrays,) = inputs(tiny, write_video(tmp_path / "v.mp4", times=steady(25, 25), sound=sound), silent=True)
        assert not arrays["waveform"].any()


def test_the_three_audio_forms(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", times=steady(25, 125), sound=tone(5))
    made = {}
    for audio in ("waveform", "log_mel"):
        bundle = tiny_bundle.make_bundle(tmp_path / audio, audio=audio, vectors=False)
        (arrays,) = inputs(bundle, path)
        assert list(arrays) == ["frames", audio]
        made |= arrays
    np.testing.assert_array_equal(made["log_mel"][0], log_mel(made["waveform"][0]))
    bundle = tiny_bundle.make_bundle(tmp_path / "audio_embedding", audio="audio_embedding", vectors=False)
    with pytest.raises(MediaError, match=r"'audio_embedding'.*--audio waveform"):
        check_inputs(bundle.manifest, bundle.graph())


@pytest.mark.parametrize(("height", "width"), [(16, 24), (224, 224), (37, 41), (8, 300)])
def test_resize_is_bilinear_without_antialiasing(height: int, width: int) -> None:
    """Against the formula of OpenCV's INTER_LINEAR: pixel centres at halves, edges repeated."""
    pixels = np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)

    def taps(target: int, source: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = (np.arange(target) + 0.5) * source / target - 0.5
        left = np.floor(place).astype(int)
        return np.clip(left, 0, source - 1), np.clip(left + 1, 0, source - 1), place - left

    top, bottom, down = taps(height, 72)
    left, right, along = taps(width, 96)
    wide = pixels.astype(np.float64)
    along, down = along[None, :, None], down[:, None, None]
    rows = [wide[y][:, left] * (1 - along) + wide[y][:, right] * along for y in (top, bottom)]
    expected = rows[0] * (1 - down) + rows[1] * down
    assert np.abs(resize(pixels, width, height) - expected).max() < 0.501
