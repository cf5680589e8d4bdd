"""Clips computed as a stream would compute them: each frame encoded once, each mask decoded from a pair of frames."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends import BackendSpec, create
from avsbg.runtime.backends.base import Backend, DeviceTensor, Inputs, Results
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.errors import BackendError
from avsbg.runtime.media.log_mel import PATCH_HOP, PATCH_SAMPLES

Features = dict[str, Any]


def is_feature(tensor: str) -> bool:
    """Whether a tensor passes from a stream's encoder to its decoder."""
    return tensor.split(".", maxsplit=1)[0] in ("fused", "partner")


def check_pair(encode: Backend, decode: Backend) -> None:
    """Check that two backends are of a stream's two graphs, and that one's features are what the other takes."""
    if (GraphName.parse(encode.graph).role, GraphName.parse(decode.graph).role) != ("encode", "decode"):
        raise BackendError(f"a stream takes the graphs encode and decode, not {encode.graph} and {decode.graph}.")
    made = {tensor.name: tensor for tensor in encode.contract.outputs}
    for tensor in decode.contract.inputs:
        source = made.get(tensor.name.replace("partner.", "fused."))
        if source is None or (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
            what = "nothing" if source is None else f"{source.dtype} {list(source.shape)}"
            takes = f"the graph {decode.graph} takes {tensor.name} as {tensor.dtype} {list(tensor.shape)}"
            raise BackendError(
                f"{takes}, and {encode.graph} returns {what}.", "Take both graphs in the same precision."
            )


def encode_frame(encode: Backend, inputs: Inputs) -> Features:
    """The features of one new frame, on the device where they were computed."""
    names = [tensor.name for tensor in encode.contract.outputs]
    return dict(encode.run(inputs, names, device_outputs=names))


def decode_pair(decode: Backend, fused: Features, partner: Features, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The outputs of a frame `[streams, H, W]` from its features and its partner's (which may be the same object)."""
    names = [tensor.name for tensor in decode.contract.inputs]
    made = {True: partner, False: fused}
    inputs = {name: made[name.startswith("partner.")][name.replace("partner.", "fused.")] for name in names}
    return decode.run(inputs, outputs)


def release(features: Features) -> None:
    """Return the buffers of a frame's features."""
    for array in features.values():
        array.release()


class StreamedClip(Backend):
    """Has the contract of the clip graph and computes it through `encode` and `decode`, frame by frame.

    It holds the stream's graphs against the same test vectors and accuracy thresholds as the clip's.

    Args:
        encode, decode: backends of the two graphs, of one class and not yet open; they are open while this is.

    Raises:
        BackendError: the two do not fit each other.
    """

    name: ClassVar[str] = "streamed"

    def __init__(self, encode: Backend, decode: Backend) -> None:
        super().__init__(encode.bundle, "clip")
        check_pair(encode, decode)
        self.encode, self.decode = encode, decode
        self.accuracy_check = decode.accuracy_check or encode.accuracy_check
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

    def _masks(self, arrays: dict[str, NDArray[Any]], outputs: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """Each frame's outputs: of all but the last with the next as partner, of the last with the one before."""
        frames = self.bundle.manifest.clip.frames
        before = encode_frame(self.encode, frame_inputs(arrays, 0))
        for index in range(1, frames):
            new = encode_frame(self.encode, frame_inputs(arrays, index))
            yield decode_pair(self.decode, before, new, outputs)
            if index == frames - 1:
                yield decode_pair(self.decode, new, before, outputs)
                release(new)
            release(before)
            before = new


def check_streams(bundle: Bundle) -> None:
    """Check that a bundle has the graphs of a stream.

    Raises:
        BackendError: it has not; says why and what to do.
    """
    if {"encode", "decode"} <= set(bundle.manifest.graphs):
        return
    if bundle.manifest.variant.get("network") == "avsbench":
        raise BackendError(
            "avsbench cannot be streamed: its TPAVI sums over all frames of a clip, so each mask depends on every "
            "frame, and one frame with its neighbour does not determine it.",
            "Run it on clips, or stream avs-bg, in which only neighbouring frames interact.",
        )
    raise BackendError(f"{bundle.path} has no graphs for streams.", "Export it again with --stream.")


def create_streamed_clip(bundle: Bundle, spec: BackendSpec, **options: Any) -> StreamedClip:
    """The backend of a specification on both graphs of a bundle's stream, not yet open.

    Raises:
        BackendError: the bundle has no such graphs, or the backend refuses what is asked for.
    """
    check_streams(bundle)
    common = {**spec.options(), **options, "operator": None}
    return StreamedClip(
        create(spec.backend, bundle, graph="encode", **common),
        create(spec.backend, bundle, graph="decode", **{**common, "operator": spec.operator}),
    )


def frame_inputs(arrays: dict[str, NDArray[Any]], index: int) -> dict[str, NDArray[Any]]:
    """The inputs of `encode` for one frame of clips, of those of the clip graph.

    Its sound is the clip's log-mel patch of the same number, as published: 15,600 samples from `15360 * index` on.
    """
    window = slice(PATCH_HOP * index, PATCH_HOP * index + PATCH_SAMPLES)
    return {name: array[:, window if name == "waveform" else index] for name, array in arrays.items()}
