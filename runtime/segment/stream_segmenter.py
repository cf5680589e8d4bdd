"""Segmenting second by second through a stream: one encoder pass for each, and no clip to wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from avsbg.runtime.backends import Backend
from avsbg.runtime.media.samples import Second
from avsbg.runtime.media.video import SampledFrame
from avsbg.runtime.segment.segmenter import Segmented, checked
from avsbg.runtime.streaming.stream import Spacing, Stream, StreamMask


class StreamSegmenter:
    """Segments a video or a live source with the graphs `encode` and `decode`.

    A second's mask comes with the next second, and is that of clip mode, but for the last second of each clip, whose
    partner is here the second after it.

    Args:
        encode: an open backend on an `encode` graph.
        decode: one of the same class, on a `decode` graph.
        spacing: where the sound of a frame is taken from, see `Stream`; `published` for what is as in clip mode.

    Raises:
        BackendError: the backends do not fit each other.
    """

    def __init__(self, encode: Backend, decode: Backend, spacing: Spacing = "published") -> None:
        self.bundle = encode.bundle
        self.listens = self.bundle.manifest.variant.get("audio") is not False
        self._encode, self._decode, self._spacing = encode, decode, spacing
        self._offset = self.bundle.manifest.preprocessing.frame_offset
        self._stream = Stream(encode, decode, spacing=spacing)
        self._shown: deque[tuple[int, SampledFrame]] = deque()

    def reset(self) -> None:
        """Begin a new stream; nothing of the old one is computed any more."""
        self._stream.abandon()
        self._stream = Stream(self._encode, self._decode, spacing=self._spacing)
        self._shown.clear()

    def push(self, second: Second) -> Iterator[Segmented]:
        """The second before, as a rule."""
        index = self._stream.counters.frames
        self._shown.append((index, second.shown))
        begin = float(second.shown.second)
        masks = self._stream.push(second.frame, second.samples, begin + self._offset, sound_timestamp=begin)
        return self._segmented(masks)

    def finish(self) -> Iterator[Segmented]:
        """The last second; its partner is the one before it."""
        return self._segmented(self._stream.close())

    def describe(self) -> dict[str, Any]:
        """What both backends say, and the mode."""
        return {
            "mode": "stream",
            "spacing": self._spacing,
            "encode": self._encode.describe(),
            "decode": self._decode.describe(),
        }

    def _segmented(self, masks: list[StreamMask]) -> Iterator[Segmented]:
        for mask in masks:
            index, shown = self._shown.popleft()
            assert index == mask.index
            yield checked(shown, mask.probability)
