"""Many streams whose frames come in any order give the masks that each has alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.media.log_mel import PATCH_SAMPLES
from avsbg.runtime.serving.sequences import SequenceMask, SequenceRequest, SequenceSegmenter
from fixtures.stream_bundle import frame


@pytest.fixture
def segmenter(tiny_stream: Bundle) -> Iterator[SequenceSegmenter]:
    with (
        create("onnxruntime", tiny_stream, graph="encode", threads=1) as encode,
        create("onnxruntime", tiny_stream, graph="decode", threads=1) as decode,
    ):
        yield SequenceSegmenter(encode, decode, 3, ["logits", "probability"])


def request(sequence: int, value: int = 0, *, sound: float = 0.0, **flags: object) -> SequenceRequest:
    waveform = np.full((1, PATCH_SAMPLES), sound, np.float32)
    return SequenceRequest(sequence, {"frames": frame(value)[None], "waveform": waveform}, **flags)


def told(result: object) -> tuple[int, int, int, str] | None:
    """Of a mask: the frame's value, its partner's, its number and which partner that was."""
    if result is None:
        return None
    assert isinstance(result, SequenceMask), result
    value = int(result.outputs["logits"][0, 0, 0])
    return value % 1000, value // 1000, result.index, result.partner


def test_streams_that_take_turns_have_their_own_partners(segmenter: SequenceSegmenter) -> None:
    begun = segmenter.step([request(1, 10, start=True), request(2, 20, start=True)])
    assert begun == [None, None]
    assert [told(one) for one in segmenter.step([request(2, 21)])] == [(20, 21, 0, "next")]
    both = segmenter.step([request(1, 11), request(2, end=True)])
    assert [told(one) for one in both] == [(10, 11, 0, "next"), (21, 20, 1, "previous")]
    assert [told(one) for one in segmenter.step([request(1, end=True)])] == [(11, 10, 1, "previous")]
    assert len(segmenter) == 0


def test_a_stream_of_one_frame_is_its_own_partner(segmenter: SequenceSegmenter) -> None:
    segmenter.step([request(7, 3, start=True)])
    assert told(segmenter.step([request(7, 99, end=True)])[0]) == (3, 3, 0, "itself")


def test_timestamps_are_the_clients_or_a_second_apart(segmenter: SequenceSegmenter) -> None:
    segmenter.step([request(1, 1, start=True, timestamp=100.0)])
    masks = [segmenter.step([one])[0] for one in (request(1, 2), request(1, 3, timestamp=101.5), request(1, end=True))]
    assert [mask.timestamp for mask in masks] == [100.0, 101.0, 101.5]
    segmenter.step([request(1, 1, start=True, timestamp=5.0)])
    (error,) = segmenter.step([request(1, 2, timestamp=5.0)])
    assert isinstance(error, BackendError)
    assert "later than 5.0, not 5.0" in str(error)


def test_frames_across_a_gap_are_no_partners(segmenter: SequenceSegmenter) -> None:
    times = {1: 0.0, 2: 2.0, 3: 4.5, 4: 9.0}
    steps = [request(1, value, start=value == 1, timestamp=time) for value, time in times.items()]
    masks = [told(segmenter.step([one])[0]) for one in (*steps, request(1, end=True))]
    assert masks == [None, (1, 2, 0, "next"), (2, 1, 1, "previous"), (3, 3, 2, "itself"), (4, 4, 3, "itself")]


def test_what_is_wrong_with_one_stream_is_its_own_affair(segmenter: SequenceSegmenter) -> None:
    segmenter.step([request(1, 1, start=True), request(2, 2, start=True, sound=np.nan)])
    unknown, fine, bad, ended = segmenter.step([request(3, 9), request(1, 4), request(2, 5), request(4, end=True)])
    assert "the stream 3 has not begun" in str(unknown)
    assert told(fine) == (1, 4, 0, "next")
    assert "NaN or infinity" in str(bad)
    assert "the stream 4 has not begun" in str(ended)


def test_of_more_streams_than_there_may_be_the_one_silent_for_longest_is_forgotten(
    segmenter: SequenceSegmenter,
) -> None:
    for number in (1, 2, 3):
        segmenter.step([request(number, number, start=True)])
    segmenter.step([request(1, 11)])
    segmenter.step([request(4, 4, start=True)])
    assert len(segmenter) == 3
    forgotten, kept = segmenter.step([request(2, 12), request(1, 12)])
    assert "has not begun" in str(forgotten)
    assert told(kept) == (11, 12, 1, "next")


def test_a_stream_that_begins_anew_forgets_what_was(segmenter: SequenceSegmenter) -> None:
    segmenter.step([request(1, 1, start=True)])
    assert segmenter.step([request(1, 50, start=True)]) == [None]
    assert told(segmenter.step([request(1, 51)])[0]) == (50, 51, 0, "next")
