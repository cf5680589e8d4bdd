"""Streams side by side, computed together: each advances by one frame, and its mask comes one frame later.

It is what `runtime.streaming` does for one stream, for requests as a server hands them on: any subset of the streams,
a frame of each. The request that ends a stream brings no frame: it asks for the mask of the last one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends import Backend
from avsbg.runtime.errors import BackendError
from avsbg.runtime.streaming.frame_pair import MAX_GAP, Partner, check_pair

Array = NDArray[Any]
Features = dict[str, Array]


@dataclass(frozen=True)
class SequenceRequest:
    """The next frame of a stream, or its end."""

    sequence: int | str  # by which the client knows the stream
    inputs: Mapping[str, Array]  # of the graph `encode`, for one frame: `[1, ...]`; not read where it is the end
    start: bool = False
    end: bool = False
    timestamp: float | None = None  # of the frame, in seconds; None for a second after the one before


@dataclass(frozen=True)
class SequenceMask:
    """The mask that a request made final."""

    outputs: dict[str, Array]  # those asked for, `[1, H, W]`
    index: int  # of its frame in the stream
    timestamp: float
    partner: Partner


@dataclass
class _Frame:
    index: int
    timestamp: float
    features: Features = field(default_factory=dict)


# A frame, its partner, and which that is.
_Pair = tuple[_Frame, _Frame, Partner]


@dataclass
class _Sequence:
    last: _Frame | None = None
    before: _Frame | None = None  # `last`, unless there is a gap between them


def _last_pair(stream: _Sequence) -> _Pair | None:
    """The last frame with the one before it, where none follows."""
    if stream.last is None:
        return None
    return stream.last, stream.before or stream.last, "previous" if stream.before else "itself"


class SequenceSegmenter:
    """Segments the frames of many streams; frames more than `MAX_GAP` seconds apart are no partners.

    Args:
        encode, decode: open backends of a stream's two graphs.
        capacity: how many streams are kept; of more, the one that was silent for longest is forgotten. A server that
            bounds them itself drops silent streams without a word.
        outputs: of `decode`, what a mask consists of.

    Raises:
        BackendError: the backends do not fit each other.
    """

    def __init__(self, encode: Backend, decode: Backend, capacity: int, outputs: Sequence[str]) -> None:
        check_pair(encode, decode)
        self._encode, self._decode = encode, decode
        self._capacity, self._outputs = capacity, list(outputs)
        self._decoder_inputs = [tensor.name for tensor in decode.contract.inputs]
        self._has_partners = any(name.startswith("partner.") for name in self._decoder_inputs)
        manifest = encode.bundle.manifest
        self._period, self._offset = manifest.clip.seconds_per_frame, manifest.preprocessing.frame_offset
        self._sequences: OrderedDict[int | str, _Sequence] = OrderedDict()

    def __len__(self) -> int:
        """The number of streams that are kept."""
        return len(self._sequences)

    def step(self, requests: Sequence[SequenceRequest]) -> list[SequenceMask | BackendError | None]:
        """Take at most one request of each stream.

        Returns for each the mask that it made final, None if there is none, or what was wrong with this stream alone.

        Raises:
            BackendError: the network failed on all of them. The streams go on without these frames; those that end do.
        """
        for one in requests:
            if one.start and not one.end:  # whatever becomes of it: the stream of this name before is another client's
                self.forget(one.sequence)
        ended = iter([self._end(one) for one in requests if one.end])
        encoded = iter(self._encode_frames([one for one in requests if not one.end]))
        results: list[SequenceMask | BackendError | None] = []
        pairs: list[_Pair] = []
        waiting: list[int] = []  # places in `results` that `pairs` will fill
        for place, request in enumerate(requests):
            pair = next(ended) if request.end else self._add(request, next(encoded))
            results.append(pair if isinstance(pair, BackendError) else None)
            if isinstance(pair, tuple):
                pairs.append(pair)
                waiting.append(place)
        for place, mask in zip(waiting, self._decode_pairs(pairs), strict=True):
            results[place] = mask
        return results

    def forget(self, sequence: int | str) -> None:
        """Drop a stream, if it is kept; its last mask is lost."""
        self._sequences.pop(sequence, None)

    def _add(self, request: SequenceRequest, features: Features) -> _Pair | BackendError | None:
        known = self._sequences.get(request.sequence)
        if known is None and not request.start:
            return BackendError(f"the stream {request.sequence} has not begun.", "Its first request carries START.")
        stream = known or _Sequence()
        last = stream.last
        following = self._offset if last is None else last.timestamp + self._period
        timestamp = following if request.timestamp is None else request.timestamp
        if not np.isfinite(timestamp) or (last is not None and timestamp <= last.timestamp):
            before = "" if last is None else f", later than {last.timestamp}"
            return BackendError(f"a frame's timestamp is a number of seconds{before}, not {timestamp}.")
        frame = _Frame(0 if last is None else last.index + 1, timestamp, features)
        has_gap = last is not None and timestamp - last.timestamp > MAX_GAP
        ended = _last_pair(stream) if has_gap else None
        stream.before, stream.last = None if has_gap else last, frame
        self._sequences[request.sequence] = stream
        self._sequences.move_to_end(request.sequence)
        while len(self._sequences) > self._capacity:
            self._sequences.popitem(last=False)
        if not self._has_partners:
            return frame, frame, "none"
        return ended if last is None or has_gap else (last, frame, "next")

    def _end(self, request: SequenceRequest) -> _Pair | BackendError | None:
        stream = self._sequences.pop(request.sequence, None)
        if stream is None or stream.last is None or request.start:
            return BackendError(f"the stream {request.sequence} has not begun, so there is no last mask of it.")
        return _last_pair(stream) if self._has_partners else None

    def _encode_frames(self, requests: Sequence[SequenceRequest]) -> list[Features]:
        if not requests:
            return []
        names = [tensor.name for tensor in self._encode.contract.inputs]
        inputs = {name: np.concatenate([one.inputs[name] for one in requests]) for name in names}
        maps = self._encode.run(inputs)
        # Copies: a view would keep the maps of all streams for as long as one needs its own.
        return [{name: array[row : row + 1].copy() for name, array in maps.items()} for row in range(len(requests))]

    def _decode_pairs(self, pairs: Sequence[_Pair]) -> list[SequenceMask | BackendError]:
        if not pairs:
            return []
        inputs = {}
        for name in self._decoder_inputs:
            side = 1 if name.startswith("partner.") else 0
            source = name.replace("partner.", "fused.")
            inputs[name] = np.concatenate([(pair[0], pair[1])[side].features[source] for pair in pairs])
        outputs = self._decode.run(inputs, self._outputs)
        masks: list[SequenceMask | BackendError] = []
        for row, (frame, _, partner) in enumerate(pairs):
            own = {name: array[row : row + 1] for name, array in outputs.items()}
            if all(np.isfinite(array).all() for array in own.values()):
                masks.append(SequenceMask(own, frame.index, frame.timestamp, partner))
            else:
                problem = f"the network returned NaN or infinity for the frame at {frame.timestamp} s."
                masks.append(BackendError(problem, "Check the sound that was sent, and the bundle: `avsbg verify`."))
        return masks
