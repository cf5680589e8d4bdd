"""Videos through a stream: the seconds that went in come out, each with its own sound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.backends import BackendSpec, create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.errors import BackendError
from avsbg.runtime.media.samples import Sample
from avsbg.runtime.segment.segmenter import Segmented, StreamSegmenter
from avsbg.runtime.streaming.frame_pair import create_streamed_clip
from fixtures import stream_bundle
from fixtures.cli import run_avsbg
from fixtures.engines import passed


@contextmanager
def segmenter(tiny_stream: Bundle, spacing: str) -> Iterator[StreamSegmenter]:
    with (
        create("onnxruntime", tiny_stream, graph="encode") as encode,
        create("onnxruntime", tiny_stream, graph="decode") as decode,
    ):
        yield StreamSegmenter(encode, decode, spacing)  # type: ignore[arg-type]


def second(index: int, length: Fraction = Fraction(1)) -> Sample:
    """Its sound says what time it is."""
    frame = stream_bundle.frame(index)
    return Sample(index, index + Fraction(15, 16), length, frame, frame, stream_bundle.clock(index, float(length)))


def heard(results: list[Segmented]) -> list[tuple[int, float]]:
    return [(sample.number, round(float(probability[0, 0]), 3)) for sample, probability, _ in results]


def test_each_second_comes_one_later_with_its_own_sound(tiny_stream: Bundle) -> None:
    with segmenter(tiny_stream, "timestamp") as stream:
        for _ in range(2):  # a second video begins anew
            stream.reset()
            steps = [heard(list(stream.push(second(index)))) for index in range(4)]
            steps.append(heard(list(stream.finish())))
            # Silence of a whole patch would follow a video's end; the last second's window is all there.
            assert [[one[0] for one in step] for step in steps] == [[], [0], [1], [2], [3]]
            assert [step[0][1] for step in steps[1:]] == [0, 1, 2, 3]
        assert stream.describe()["mode"] == "stream"
        assert stream.describe()["encode"]["graph"] == "encode"


def test_published_spacing_is_that_of_clips(tiny_stream: Bundle) -> None:
    with segmenter(tiny_stream, "published") as stream:
        results = [result for index in range(7) for result in stream.push(second(index))] + list(stream.finish())
    # Clips of three seconds, their windows 0.96 s apart.
    assert heard(results) == [(0, 0), (1, 0.96), (2, 1.92), (3, 3), (4, 3.96), (5, 4.92), (6, 6)]


def test_a_short_last_second_and_what_is_dropped(tiny_stream: Bundle) -> None:
    with segmenter(tiny_stream, "timestamp") as stream:
        stream.reset()
        results = [one for index in (0, 1, 5, 6) for one in stream.push(second(index))]
        results += list(stream.push(second(7, Fraction(1, 2)))) + list(stream.finish())
    assert heard(results) == [(0, 0), (1, 1), (5, 5), (6, 6), (7, 7)]
    with segmenter(tiny_stream, "timestamp") as stream:
        assert list(stream.finish()) == []


def test_a_failed_video_leaves_nothing(tiny_stream: Bundle) -> None:
    with segmenter(tiny_stream, "timestamp") as stream:
        list(stream.push(second(0)))
        list(stream.push(second(1)))
        stream.reset()
        results = list(stream.push(second(0))) + list(stream.push(second(1))) + list(stream.finish())
    assert heard(results) == [(0, 0), (1, 1)]
    assert np.isfinite(results[0][1]).all()


def test_the_command_says_what_cannot_be_streamed(tiny: Bundle, tmp_path: Path) -> None:
    def error_of(*arguments: object) -> str:
        return run_avsbg("run", *arguments, "-o", tmp_path / "out").paragraph

    (tmp_path / "v.mp4").touch()
    assert "--stream" in error_of(tiny.path, tmp_path / "v.mp4", "--mode", "stream")
    assert "is for live sources" in error_of(tiny.path, tmp_path / "v.mp4", "--duration", 3)
    assert "those run alone" in error_of(tiny.path, "udp://127.0.0.1:9", tmp_path / "v.mp4")
    assert "is no microphone" in error_of(tiny.path, "udp://127.0.0.1:9", "--microphone", "m.wav")


def test_a_stream_has_the_accuracy_threshold_of_its_clip_graph(tiny_stream: Bundle, tmp_path: Path) -> None:
    """Its own two graphs take no whole clips, and are not measured."""
    path = Path(shutil.copytree(tiny_stream.path, tmp_path / "bundle"))
    document = json.loads((path / MANIFEST).read_text())
    document["graphs"]["clip"]["accuracy"] = passed(0.5)
    (path / MANIFEST).write_text(json.dumps(document))
    bundle, spec = Bundle.open(path), BackendSpec.parse("onnxruntime")
    with pytest.raises(BackendError, match=r"the graph encode missed its accuracy threshold.*--allow-failed-accuracy"):
        create_streamed_clip(bundle, spec)
    streamed = create_streamed_clip(bundle, spec, allow_failed_accuracy=True)
    assert (streamed.accuracy_check["gate"], streamed.accuracy_check["miou"]) == ("failed, overridden", 0.5)
    assert "gate" not in create_streamed_clip(tiny_stream, spec).accuracy_check
