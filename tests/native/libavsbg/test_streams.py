"""Streams through libavsbg against Python's: the same masks, whatever the chunks of sound and the cadence of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import AvsbgError
from fixtures import stream_bundle
from fixtures.libavsbg import Library, LibraryError
from fixtures.stream_bundle import RATE, frame

pytestmark = pytest.mark.native

STREAMS = 2  # AVSBG_STREAMS
OPTIONS = [
    {},
    {"latency": "zero"},
    {"spacing": "published"},
    {"max_gap": 0.7, "patience": 0.5},
    {"patience": 0.0, "frame_offset": 0.25},
]


def events(seed: int) -> list[tuple[Any, ...]]:
    """The input of a stream: frames at irregular times, sound in odd chunks, with jitter, gaps, overlaps and cuts."""
    random = np.random.default_rng(seed)
    found: list[tuple[Any, ...]] = []
    time = sounded = float(random.uniform(0, 50))
    for _ in range(60):
        kind = random.choice(["frame", "sound", "sound", "untimed", "gap", "overlap", "late", "cut", "wrong"],
                             p=[0.35, 0.25, 0.15, 0.08, 0.04, 0.04, 0.04, 0.03, 0.02])  # fmt: skip
        count = int(random.integers(0, 30000))
        samples = random.uniform(-1, 1, count).astype(np.float32)
        value = int(random.integers(0, 256))
        if kind == "frame":
            time += float(random.choice([1.0, 0.1, 0.5, 1.7, 3.0]))
            found.append(("push", frame(value), time))
        elif kind == "late":
            found.append(("push", frame(value), None))
            time += 1.0
        elif kind == "wrong":
            found.append(("push", frame(value), time - 100))
        elif kind == "cut":
            found.append(("cut",))
            time = sounded = float(random.uniform(0, 50))
        else:
            step = {"gap": 0.5, "overlap": -0.3}.get(kind, float(random.uniform(-0.05, 0.05)))
            found.append(("push_sound", samples, None if kind == "untimed" else sounded + step))
            sounded += count / RATE + (step if kind in ("gap",) else 0)
    return [*found, ("close",)]


def play(stream: Any, what: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """All that comes of it: masks after each event, or that it was refused."""
    found: list[tuple[Any, ...]] = []
    for name, *arguments in what:
        try:
            if name == "push" and not hasattr(stream, "handle"):
                masks = stream.push(arguments[0], timestamp=arguments[1])
            else:
                masks = getattr(stream, name)(*arguments)
        except (AvsbgError, LibraryError):
            found.append(("refused",))
            continue
        for mask in masks:
            maps = tuple(mask.outputs[key].tobytes() for key in ("probability", "logits"))
            found.append((mask.index, mask.segment, mask.timestamp, mask.partner, maps))
        found.append(("next",))
    return found


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_masks_are_those_of_python_after_every_event(
    tiny_stream: Bundle, library: Library, options: dict[str, Any], seed: int
) -> None:
    what = events(seed)
    with stream_bundle.stream(tiny_stream, **options) as stream:
        expected = play(stream, what)
        counters = stream.counters
    given = {name: value for name, value in options.items() if name not in ("latency", "spacing")}
    given |= {"zero_latency": int(options.get("latency") == "zero")}
    given |= {"published_spacing": int(options.get("spacing") == "published"), "logits": 1}
    with library.open(tiny_stream.path, uses=STREAMS) as model, model.stream(**given) as ours:
        found = play(ours, what)
        counted = ours.counters()
    assert found == expected
    assert len(expected) > 60
    sound = counters.sound
    assert counted == {
        "frames": counters.frames, "masks": counters.masks, "segments": counters.segments,
        "incomplete": counters.incomplete, "sound_received": sound.received, "sound_late": sound.late,
        "sound_overdue": sound.overdue, "sound_missing": sound.missing,
    }  # fmt: skip


def test_streams_of_one_model_do_not_know_of_each_other(tiny_stream: Bundle, library: Library) -> None:
    with library.open(tiny_stream.path, uses=STREAMS) as model, model.stream() as one, model.stream() as other:
        one.push_sound(stream_bundle.clock(0, 10))
        assert one.push(frame(1)) == []
        other.push_sound(stream_bundle.clock(5, 10))
        assert other.push(frame(2)) == []
        (mask,) = one.close()
        (second,) = other.close()
    assert (mask.partner, second.partner) == ("itself", "itself")
    assert (mask.probability[0, 0], second.probability[0, 0]) == (0.0, 5.0)


def test_a_stream_outlives_its_model(tiny_stream: Bundle, library: Library) -> None:
    with library.open(tiny_stream.path, uses=STREAMS) as model:
        opened = model.stream()
        stream = opened.__enter__()
    stream.push_sound(stream_bundle.clock(0, 2))
    stream.push(frame(7))
    assert len(stream.close()) == 1
    with pytest.raises(LibraryError, match="the stream was finished"):
        stream.push(frame(8))
    opened.__exit__(None, None, None)


def test_what_a_stream_does_not_take_is_refused_and_it_goes_on(tiny_stream: Bundle, library: Library) -> None:
    with library.open(tiny_stream.path, uses=STREAMS) as model, model.stream() as stream:
        with pytest.raises(LibraryError, match="sound of 44100 Hz; the bundle takes 16000 Hz"):
            stream.push_sound(stream_bundle.clock(0, 1), rate=44100)
        with pytest.raises(LibraryError, match="media: sound holds NaN"):
            stream.push_sound(np.full(9, np.inf, np.float32))
        with pytest.raises(LibraryError, match="timestamp is a number"):
            stream.push_sound(stream_bundle.clock(0, 1), float("nan"))
        stream.push_sound(stream_bundle.clock(0, 3))
        stream.push(frame(1))
        with pytest.raises(LibraryError, match="must be later"):
            stream.push(frame(2), 0.5)
        assert len(stream.push(frame(3))) == 1
    seconds = pytest.raises(LibraryError, match="max_gap is a number of seconds from 0 on")
    with library.open(tiny_stream.path, uses=STREAMS) as model, seconds, model.stream(max_gap=-1.0):
        pass
    finite = pytest.raises(LibraryError, match="backend: frame_offset is a finite number")
    with library.open(tiny_stream.path, uses=STREAMS) as model, finite, model.stream(frame_offset=float("inf")):
        pass
