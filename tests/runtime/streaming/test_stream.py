"""Masks of a stream whose frames and sound come as they do in life; the network shows which of them it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError, MediaError
from avsbg.runtime.streaming.stream import Stream, open_stream
from fixtures import stream_bundle
from fixtures.stream_bundle import clock, frame, seen


def test_a_mask_comes_with_the_next_frame_and_the_last_at_the_end(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream:
        stream.push_sound(clock(0, 10))
        returned = [seen(stream.push(frame(value))) for value in (1, 2, 3)]
        assert returned == [[], [(1, 2, "next")], [(2, 3, "next")]]
        assert seen(stream.close()) == [(3, 2, "previous")]
        assert stream.close() == []
        assert (stream.counters.frames, stream.counters.masks, stream.counters.segments) == (3, 3, 1)
        with pytest.raises(BackendError, match="was closed"):
            stream.push(frame(4))


def test_without_latency_the_partner_is_the_frame_before(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream, latency="zero") as stream:
        stream.push_sound(clock(0, 10))
        returned = [seen(stream.push(frame(value))) for value in (1, 2, 3)]
        assert returned == [[(1, 1, "itself")], [(2, 1, "previous")], [(3, 2, "previous")]]
        assert stream.close() == []


def test_a_single_frame_is_its_own_partner(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream:
        assert stream.push(frame(7), clock(0, 1)) == []
        assert seen(stream.close()) == [(7, 7, "itself")]


def test_an_empty_stream_has_no_masks(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream:
        stream.push_sound(clock(0, 3))
        assert stream.close() == []


def test_a_gap_breaks_the_pair(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream, max_gap=1.5) as stream:
        stream.push_sound(clock(0, 20))
        masks = []
        for value, time in ((1, 1.0), (2, 2.5), (3, 4.1), (4, 5.0)):
            masks += stream.push(frame(value), timestamp=time)
        masks += stream.close()
    assert seen(masks) == [(1, 2, "next"), (2, 1, "previous"), (3, 4, "next"), (4, 3, "previous")]
    assert [mask.segment for mask in masks] == [0, 0, 1, 1]
    assert [mask.index for mask in masks] == [0, 1, 2, 3]
    assert [mask.timestamp for mask in masks] == [1.0, 2.5, 4.1, 5.0]


def test_a_cut_begins_anew_on_another_clock(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream:
        stream.push(frame(1), clock(0, 1), 100.0)
        assert seen(stream.cut()) == [(1, 1, "itself")]
        stream.push(frame(2), clock(0, 1), 0.9375)
        (mask,) = stream.close()
        assert (mask.segment, mask.index, mask.timestamp) == (1, 1, 0.9375)
        assert mask.probability[0, 0] == 0.0  # sound of the new clock


@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0, 30.0])
def test_the_sound_of_a_frame_is_placed_by_its_timestamp_at_any_cadence(tiny_stream: Bundle, rate: float) -> None:
    times = 3.0 + np.arange(12) / rate
    with stream_bundle.stream(tiny_stream) as stream:
        masks = []
        sound = iter(np.array_split(clock(0, times[-1] + 1), 37))
        until = 0.0
        for value, time in enumerate(times):
            while until < time:
                chunk = next(sound)
                until += len(chunk) / 16000
                masks += stream.push_sound(chunk)
            masks += stream.push(frame(value), timestamp=float(time))
        for chunk in sound:
            masks += stream.push_sound(chunk)
        masks += stream.close()
        assert stream.counters.incomplete == 0
    starts = [float(mask.probability[0, 0]) for mask in masks]
    np.testing.assert_allclose(starts, times - 15 / 16, atol=0.51 / 16000)


def test_published_windows_follow_each_other_within_a_clip(tiny_stream: Bundle) -> None:
    """T is 3 here: the fourth frame's window begins at 3 s again, so that it never drifts."""
    with stream_bundle.stream(tiny_stream, spacing="published") as stream:
        stream.push_sound(clock(0, 10))
        masks = [mask for value in range(7) for mask in stream.push(frame(value))] + stream.close()
    starts = [float(mask.probability[0, 0]) for mask in masks]
    np.testing.assert_allclose(starts, [0, 0.96, 1.92, 3, 3.96, 4.92, 6], atol=1e-6)


def test_a_frame_waits_for_late_sound(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream:
        assert stream.push(frame(1)) == stream.push(frame(2)) == []
        assert stream.waiting == 2
        assert stream.push_sound(clock(0, 1.9)) == []  # the first frame can be encoded, and has no partner yet
        assert stream.waiting == 1
        assert seen(stream.push_sound(clock(1.9, 0.1))) == [(1, 2, "next")]
        assert stream.counters.incomplete == 0


def test_sound_that_never_comes_is_silence_after_a_while(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream, patience=2.0) as stream:
        stream.push_sound(clock(0, 1) + 5)  # one second, and then the microphone is gone
        masks = [stream.push(frame(value)) for value in range(7)]
        assert [len(some) for some in masks] == [0, 0, 0, 0, 1, 1, 1]
        assert [float(mask.probability[0, 0]) for some in masks for mask in some] == [5.0, 0.0, 0.0]
        assert stream.waiting == 3
        assert stream.counters.incomplete == 3
        assert stream.counters.sound.missing == 3 * 15600


def test_a_stream_without_patience_never_waits(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream, patience=0.0, latency="zero") as stream:
        for value in range(4):
            assert len(stream.push(frame(value), timestamp=value + 1.0)) <= 1
        assert stream.waiting <= 1
        assert len(stream.close()) <= 1
        assert stream.counters.masks == 4


def test_the_clocks_of_sound_and_frames_may_drift(tiny_stream: Bundle) -> None:
    """A microphone 200 ppm fast, for 20 minutes: its samples alone would be 240 ms off at the end; stamps keep them."""
    true = 1.0002
    with stream_bundle.stream(tiny_stream) as stream:
        worst, time = 0.0, 0.0
        for second in range(1200):
            samples = (second + np.arange(round(16000 * true)) / (16000 * true)).astype(np.float32)
            for mask in stream.push_sound(samples, float(second)):
                worst = max(worst, abs(float(mask.probability[0, 0]) - (mask.timestamp - 15 / 16)))
            time = second + 15 / 16
            stream.push(frame(second % 200), timestamp=time)
        assert stream.counters.incomplete == 0
        assert stream.counters.sound.late == 0
        assert stream.counters.masks > 1190
    assert worst < 0.001


def test_frames_of_another_size_are_resized(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream:
        stream.push(np.full((20, 30, 3), 9, np.uint8), clock(0, 1))
        assert seen(stream.close()) == [(9, 9, "itself")]


def test_what_is_wrong_is_refused_and_nothing_is_lost(tiny_stream: Bundle) -> None:
    with stream_bundle.stream(tiny_stream) as stream:
        stream.push(frame(1), clock(0, 5))
        for wrong, message in (
            (np.zeros((2, 3), np.uint8), r"uint8 \[2, 3\]"),
            (np.zeros((2, 3, 3), np.float32), r"float32 \[2, 3, 3\]"),
            (np.zeros((0, 3, 3), np.uint8), r"uint8 \[0, 3, 3\]"),
        ):
            with pytest.raises(MediaError, match=message):
                stream.push(wrong)
        for time in (0.9375, 0.5, float("nan"), float("inf")):
            with pytest.raises(MediaError, match="must be later than that of the frame before"):
                stream.push(frame(2), timestamp=time)
        with pytest.raises(MediaError, match="float64"):
            stream.push(frame(2), np.zeros(10))
        with pytest.raises(MediaError, match="NaN"):
            stream.push_sound(np.array([np.nan], np.float32))
        assert seen(stream.push(frame(2))) == [(1, 2, "next")]


def test_options_that_do_not_exist(tiny_stream: Bundle) -> None:
    for options, message in (
        ({"latency": "two"}, "unknown latency 'two'.*one-frame, zero"),
        ({"spacing": "even"}, "unknown spacing 'even'.*timestamp, published"),
        ({"max_gap": -1.0}, "max_gap"),
        ({"patience": float("nan")}, "patience"),
    ):
        with pytest.raises(BackendError, match=message), open_stream(tiny_stream, **options):
            pass
    with (
        create("onnxruntime", tiny_stream, graph="encode") as encode,
        pytest.raises(BackendError, match="encode and encode"),
    ):
        Stream(encode, encode)


def test_a_bundle_without_the_graphs(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"no graphs for streams.*--stream"), open_stream(tiny):
        pass
    avsbench = Bundle(
        tmp_path,
        tiny.manifest.model_copy(
            update={"variant": {"network": "avsbench"}, "mixes_frames": "its TPAVI sums over all frames of a clip"}
        ),
    )
    with pytest.raises(BackendError, match="TPAVI sums over all frames"), open_stream(avsbench):
        pass


def test_only_two_frames_of_features_are_held(tiny_stream: Bundle) -> None:
    addresses = set()
    with stream_bundle.stream(tiny_stream) as stream:
        stream.push_sound(clock(0, 40))
        for value in range(30):
            stream.push(frame(value))
            assert stream._pairing._last is not None
            addresses |= {array.value.data_ptr() for array in stream._pairing._last.features.values()}
    assert len(addresses) == 4  # two maps a frame


def test_a_failure_leaves_a_stream_that_can_go_on(tiny_stream: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with stream_bundle.stream(tiny_stream) as stream:
        stream.push_sound(clock(0, 10))
        stream.push(frame(1))
        with monkeypatch.context() as patch:

            def fail(*_: object) -> None:
                raise BackendError("the device is gone")

            patch.setattr(stream._pairing._encode, "_run", fail)
            with pytest.raises(BackendError, match="the device is gone"):
                stream.push(frame(2))
        stream.push(frame(3))
        assert seen(stream.push(frame(4))) == [(3, 4, "next")]


def test_memory_and_counts_over_a_long_stream(tiny_stream: Bundle) -> None:
    """Memory does not depend on how much has passed; the soak of an hour is `avsbg bench stream --soak`."""
    import tracemalloc

    second = np.zeros(16000, np.float32)
    with stream_bundle.stream(tiny_stream) as stream:

        def run(frames: int) -> int:
            for value in range(frames):
                stream.push(frame(value % 250), second)
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            run(200)
            before, after = run(50), run(1000)
        finally:
            tracemalloc.stop()
        stream.close()
        assert stream.counters.masks == stream.counters.frames == 1250
        assert stream.counters.incomplete == 0
    assert after - before < 100_000
