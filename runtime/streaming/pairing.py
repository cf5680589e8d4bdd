"""Pairs of neighbouring frames: each frame is encoded once, and each mask decoded from the features of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends import Backend
from avsbg.runtime.errors import BackendError
from avsbg.runtime.media.log_mel import log_mel
from avsbg.runtime.streaming.frame_pair import Features, check_pair, decode_pair, encode_frame, release

Array = NDArray[Any]
Latency = Literal["one-frame", "zero"]
Partner = Literal["next", "previous", "itself", "none"]

OUTPUTS = ("probability",)
# Seconds: frames further apart than this are not neighbours, since networks learn from frames one second apart.
MAX_GAP = 2.0


@dataclass(frozen=True)
class StreamMask:
    """The mask of one frame of a stream.

    Attributes:
        index: of the frame, counted from 0 over the whole stream.
        segment: which unbroken run of frames it belongs to, counted from 0.
        timestamp: of the frame, in seconds.
        partner: which frame it was correlated with: the one after it, the one before it, itself (a segment of one
            frame), or none (a variant without motion).
        outputs: the outputs asked for, float32 `[H, W]` each.
    """

    index: int
    segment: int
    timestamp: float
    partner: Partner
    outputs: dict[str, Array]

    @property
    def probability(self) -> Array:
        """The probability that a pixel sounds, float32 `[H, W]`."""
        return self.outputs["probability"]


@dataclass
class StreamFrame:
    """A frame on its way to its mask.

    Attributes:
        index, segment, timestamp: as of its mask.
        pixels: uint8 `[H, W, 3]`, in the graph's size; None once it is encoded.
        audio: float32, the window of its sound `[15600]` or its audio embedding `[128]`; None while it has not come,
            for a network that uses no audio, and once the frame is encoded.
        start: when its window of sound begins, seconds.
        features: once it is encoded.
    """

    index: int
    segment: int
    timestamp: float
    pixels: Array | None
    audio: Array | None = None
    start: float = 0.0
    features: Features = field(default_factory=dict)


class FramePairing:
    """Encodes the frames of a stream in their order, and decodes their masks; arguments and errors as of `Stream`.

    It holds the features of two frames, whatever the stream's length.

    Attributes:
        audio: the encoder's input of sound.
    """

    def __init__(
        self, encode: Backend, decode: Backend, latency: Latency = "one-frame", outputs: Sequence[str] = OUTPUTS
    ) -> None:
        check_pair(encode, decode)
        if latency not in (known := get_args(Latency)):
            raise BackendError(f"unknown latency {latency!r} of a stream.", f"Choose one of: {', '.join(known)}.")
        self.audio = next(tensor for tensor in encode.contract.inputs if tensor.name != "frames")
        self._uses_audio = encode.bundle.manifest.uses_audio
        self._encode, self._decode = encode, decode
        self._latency, self._outputs = latency, tuple(outputs)
        # Without motion a frame's mask needs no second frame.
        self._has_partners = any(tensor.name.startswith("partner.") for tensor in decode.contract.inputs)
        self._last: StreamFrame | None = None  # the last frame encoded
        self._before: StreamFrame | None = None  # its predecessor, if it has one

    def add(self, frame: StreamFrame) -> list[StreamMask]:
        """Encode the next frame of a segment; returns the masks that become final by it."""
        assert frame.pixels is not None
        if self._before is not None:
            release(self._before.features)  # so that the new features take its buffers
            self._before = None
        inputs = {"frames": frame.pixels[None], self.audio.name: self._audio_input(frame.audio)}
        frame.features = encode_frame(self._encode, inputs)
        frame.pixels = frame.audio = None
        self._before, self._last = self._last, frame
        if not self._has_partners:
            return [self._mask(frame, frame, "none")]
        if self._latency == "zero":
            return [self._mask_by_past(frame)]
        return [self._mask(self._before, frame, "next")] if self._before else []

    def end_segment(self) -> list[StreamMask]:
        """Decode the mask of the last frame, if it is not final yet, and forget the frames."""
        try:
            if self._last is None or not self._has_partners or self._latency == "zero":
                return []
            return [self._mask_by_past(self._last)]
        finally:
            self.drop()

    def drop(self) -> None:
        """Forget the frames and compute nothing more of them."""
        for frame in (self._before, self._last):
            if frame is not None:
                release(frame.features)
        self._before = self._last = None

    def _audio_input(self, audio: Array | None) -> Array:
        if not self._uses_audio or audio is None:
            return np.zeros(self.audio.single_shape, self.audio.dtype)
        return log_mel(audio)[:1] if self.audio.name == "log_mel" else audio[None]

    def _mask_by_past(self, frame: StreamFrame) -> StreamMask:
        return self._mask(frame, self._before or frame, "previous" if self._before else "itself")

    def _mask(self, frame: StreamFrame, partner: StreamFrame, kind: Partner) -> StreamMask:
        outputs = decode_pair(self._decode, frame.features, partner.features, self._outputs)
        if not all(np.isfinite(array).all() for array in outputs.values()):
            hint = "Check the bundle with `avsbg verify`; a lower precision may overflow."
            raise BackendError(f"the network returned NaN or infinity for the frame at {frame.timestamp} s.", hint)
        maps = {name: array[0] for name, array in outputs.items()}
        return StreamMask(frame.index, frame.segment, frame.timestamp, kind, maps)
