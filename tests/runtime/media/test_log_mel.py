"""The numpy log-mel front end against the published one's golden vectors."""

import numpy as np
import pytest

from avsbg.runtime.media.log_mel import BANDS, FFT, PATCH_FRAMES, PATCH_HOP, PATCH_SAMPLES, ROWS_AT_ONCE, log_mel
from avsbg.runtime.media.samples import repeat_last_patch
from fixtures import golden


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    return golden.load("audio_frontend_c1")


def test_float64_waveform(published: dict[str, np.ndarray]) -> None:
    patches = log_mel(golden.waveform())
    assert patches.dtype == np.float32
    np.testing.assert_allclose(patches, published["logmel_from_float64_wave"], rtol=0, atol=1e-6)


def test_int16_waveform(published: dict[str, np.ndarray]) -> None:
    patches = log_mel(golden.int16(golden.waveform()) / 32768.0)
    np.testing.assert_allclose(patches, published["logmel_from_int16_wav"], rtol=0, atol=1e-6)


def test_patch_counts(published: dict[str, np.ndarray]) -> None:
    for samples, count in zip(published["example_count_lengths"], published["example_count"], strict=True):
        assert log_mel(np.zeros(samples)).shape == (count, 1, 96, 64), samples


def test_short_clip_repeats_its_last_patch(published: dict[str, np.ndarray]) -> None:
    """3.2 s have three patches; the preparation script repeats the third. In the waveform only the seam differs."""
    short = golden.int16(golden.waveform())[:51200] / 32768.0
    patches = log_mel(repeat_last_patch(short, 80000))
    expected = published["logmel_padded_from_3p2s_int16_wav"]
    np.testing.assert_allclose(patches[:3, :, :94], expected[:3, :, :94], rtol=0, atol=1e-6)
    np.testing.assert_allclose(patches[3:, :, :94], expected[3:, :, :94], rtol=0, atol=1e-6)


def test_repeat_last_patch_of_less_than_a_patch() -> None:
    repeated = repeat_last_patch(np.ones(100, np.float32), 80000)
    assert repeated.shape == (80000,)
    assert repeated.sum() == 100 * np.ceil(80000 / PATCH_HOP)
    assert np.count_nonzero(repeat_last_patch(np.zeros(0, np.float32), PATCH_SAMPLES)) == 0


def test_repeat_last_patch_cuts_what_is_long_enough() -> None:
    wave = np.arange(50, dtype=np.float32)
    np.testing.assert_array_equal(repeat_last_patch(wave, 20), wave[:20])


def test_products_are_small_enough_for_one_thread() -> None:
    """OpenBLAS keeps products of at most 2^18 multiplications to the thread that asks, whatever the machine."""
    assert PATCH_FRAMES % ROWS_AT_ONCE == 0
    assert ROWS_AT_ONCE * (FFT // 2 + 1) * BANDS <= 2**18
