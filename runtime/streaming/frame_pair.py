"""Pairs of neighbouring frames, of a stream or of clips: each frame encoded once, each mask decoded from two."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends import BackendSpec, create
from avsbg.runtime.backends.base import FAILED, Backend, DeviceTensor, Inputs, Results
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import STREAM_ROLES, GraphName
from avsbg.runtime.errors import BackendError
from avsbg.runtime.media.log_mel import PATCH_HOP, PATCH_SAMPLES, log_mel

Array = NDArray[Any]
Features = dict[str, Any]
Latency = Literal["one-frame", "zero"]
# The frame that one was correlated with: itself in a segment of one frame, none in a variant without motion.
Partner = Literal["next", "previous", "itself", "none"]

OUTPUTS = ("probability",)
# Seconds: frames further apart than this are not neighbours, since networks learn from frames one second apart.
MAX_GAP = 2.0


def is_feature(tensor: str) -> bool:
    """Whether a tensor passes from a stream's encoder to its decoder."""
    return tensor.split(".", maxsplit=1)[0] in ("fused", "partner")


def check_pair(encode: Backend, decode: Backend) -> None:
    """Check that two backends are of a stream's two graphs, and that one's features are what the other takes."""
    if (GraphName.parse(encode.graph).role, GraphName.parse(decode.graph).role) != STREAM_ROLES:
        raise BackendError(f"a stream takes the graphs encode and decode, not {encode.graph} and {decode.graph}.")
    made = {tensor.name: tensor for tensor in encode.contract.outputs}
    for tensor in decode.contract.inputs:
        source = made.get(tensor.name.replace("partner.", "fused."))
        if source is None or (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
            what = "nothing" if source is None else f"{source.dtype} {list(source.shape)}"
            need = f"the graph {decode.graph} takes {tensor.name} as {tensor.dtype} {list(tensor.shape)}"
            raise BackendError(f"{need}, and {encode.graph} returns {what}.", "Take both graphs in the same precision.")


def encode_frame(encode: Backend, inputs: Inputs) -> Features:
    """The features of one new frame, on the device where they were computed."""
    names = [tensor.name for tensor in encode.contract.outputs]
    return dict(encode.run(inputs, names, device_outputs=names))


def decode_pair(decode: Backend, fused: Features, partner: Features, outputs: Sequence[str]) -> dict[str, Array]:
    """The outputs of a frame `[streams, H, W]` from its features and its partner's (which may be the same object)."""
    inputs = {}
    for name in (tensor.name for tensor in decode.contract.inputs):
        source = partner if name.startswith("partner.") else fused
        inputs[name] = source[name.replace("partner.", "fused.")]
    return decode.run(inputs, outputs)


def release(features: Features) -> None:
    """Return the buffers of a frame's features."""
    for array in features.values():
        array.release()


@dataclass(frozen=True)
class StreamMask:
    """The mask of one frame of a stream.

    Attributes:
        index: the number of the frame, from 0 over the whole stream.
        segment: the number of the unbroken run of frames that it belongs to, from 0.
        timestamp: of the frame, in seconds.
        partner: the neighbour that the frame was correlated with.
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
    """A frame on its way to its mask; once it is encoded, it has features in place of pixels and sound."""

    index: int  # this and the next two as of its mask
    segment: int
    timestamp: float
    pixels: Array | None  # uint8 `[H, W, 3]`, in the graph's size
    # float32, the window of its sound `[n]`, its audio embedding `[128]` or its spectrogram; None while it has not
    # come, and for a network that uses no audio.
    audio: Array | None = None
    start: float = 0.0  # of its window of sound, seconds
    features: Features = field(default_factory=dict)


class FramePairing:
    """Encodes the frames of a stream in their order, and decodes their masks; arguments and errors as of `Stream`.

    It holds the features of two frames, whatever the stream's length. `audio` is the encoder's input of sound.
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


class StreamedClip(Backend):
    """Has the contract of the clip graph and computes it through `encode` and `decode`, frame by frame.

    It holds the stream's graphs against the same test vectors and accuracy thresholds as the clip's. The two backends
    are of one class and not yet open; they are open while this is. If they do not fit, it is a `BackendError`.
    """

    name: ClassVar[str] = "streamed"

    def __init__(self, encode: Backend, decode: Backend) -> None:
        super().__init__(encode.bundle, "clip")
        check_pair(encode, decode)
        self.encode, self.decode = encode, decode
        checks = [decode.accuracy_check, encode.accuracy_check]
        self.accuracy_check = next((check for check in checks if check.get("gate") == FAILED), checks[0] or checks[1])
        self._stack = ExitStack()

    def describe(self) -> dict[str, Any]:
        """The decoder's description, under both graphs' names, and the encoder's within it."""
        graphs = f"{self.encode.graph}+{self.decode.graph}"
        return {**self.decode.describe(), "graph": graphs, "encode": self.encode.describe()}

    def _open(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(self.encode)
            stack.enter_context(self.decode)
            self._stack = stack.pop_all()

    def _close(self) -> None:
        self._stack.close()

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        arrays = {name: array.numpy() if isinstance(array, DeviceTensor) else array for name, array in inputs.items()}
        if device_outputs:
            raise BackendError("a clip that is streamed returns its outputs to the host and has no device outputs.")
        masks = list(self._masks(arrays, outputs))
        return {name: np.stack([mask[name] for mask in masks], axis=1) for name in outputs}

    def _masks(self, arrays: dict[str, Array], outputs: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Each frame's outputs: of all but the last with the next as partner, of the last with the one before."""
        frames = self.bundle.manifest.clip.frames
        shared = self.bundle.manifest.clip.shared_sound
        before = encode_frame(self.encode, frame_inputs(arrays, 0, shared_sound=shared))
        if frames == 1:  # its own partner, as a stream of one frame
            yield decode_pair(self.decode, before, before, outputs)
            release(before)
        for index in range(1, frames):
            new = encode_frame(self.encode, frame_inputs(arrays, index, shared_sound=shared))
            yield decode_pair(self.decode, before, new, outputs)
            if index == frames - 1:
                yield decode_pair(self.decode, new, before, outputs)
                release(new)
            release(before)
            before = new


def check_streams(bundle: Bundle) -> None:
    """Check that a bundle has the graphs of a stream, or raise a `BackendError` that says why not and what to do."""
    if bundle.manifest.has_stream:
        return
    if (reason := bundle.manifest.mixes_frames) is not None:
        raise BackendError(
            f"{bundle.manifest.variant.get('network')} cannot be streamed: {reason}, so each mask depends on every "
            "frame, and one frame with its neighbour does not determine it.",
            "Run it on clips, or stream avs-bg, in which only neighbouring frames interact.",
        )
    raise BackendError(f"{bundle.path} has no graphs for streams.", "Export it again with --stream.")


def create_streamed_clip(bundle: Bundle, spec: BackendSpec, **options: Any) -> StreamedClip:
    """The backend of a specification on both graphs of a bundle's stream, not yet open; a `BackendError` if refused."""
    check_streams(bundle)
    common = {**spec.options(), **options, "operator": None}
    return StreamedClip(
        create(spec.backend, bundle, graph="encode", **common),
        create(spec.backend, bundle, graph="decode", **{**common, "operator": spec.operator}),
    )


def frame_inputs(arrays: dict[str, Array], index: int, *, shared_sound: bool = False) -> dict[str, Array]:
    """The inputs of `encode` for one frame of clips, of those of the clip graph.

    Its sound is the clip's log-mel patch of the same number, as published: 15,600 samples from `15360 * index` on; or
    all of it, where the frames share it.
    """
    window = slice(PATCH_HOP * index, PATCH_HOP * index + PATCH_SAMPLES)
    of_sound: dict[str, Any] = {"waveform": window}
    if shared_sound:
        of_sound = {"waveform": slice(None), "spectrogram": 0}
    return {name: array[:, of_sound.get(name, index)] for name, array in arrays.items()}
