"""What turns seconds of a video into masks: clip by clip, as the networks were published, or as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends import Backend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.media.samples import Second, check_inputs, graph_inputs, window_of
from avsbg.runtime.media.video import SampledFrame

Array = NDArray[Any]


@dataclass(frozen=True)
class Segmented:
    """A second with what the network says about it.

    Attributes:
        shown: the frame that stands for it.
        probability: float32 `[H, W]`, in the network's size.
    """

    shown: SampledFrame
    probability: Array


class Segmenter(Protocol):
    """What `segment_video` needs of a network. One video at a time: `push` its seconds in order, then `finish`."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that the network comes from."""

    @property
    def listens(self) -> bool:
        """Whether the network takes sound at all."""

    def reset(self) -> None:
        """A new video begins: forget what was pushed."""

    def push(self, second: Second) -> Iterator[Segmented]:
        """Take the next second; yields those that have become final, in order.

        Raises:
            BackendError: the network failed, or returned NaN.
        """

    def finish(self) -> Iterator[Segmented]:
        """The video has ended: yields what is left, and forgets it all."""

    def describe(self) -> dict[str, Any]:
        """What runs, as of `Backend.describe`."""


class ClipSegmenter:
    """Segments clips of T seconds that follow each other, as the published networks do.

    Args:
        backend: an open backend on a `clip` graph.

    Raises:
        MediaError: the graph takes something that cannot be made from a video.
    """

    def __init__(self, backend: Backend) -> None:
        check_inputs(backend.contract)
        self.bundle = backend.bundle
        self.listens = any(tensor.name != "frames" for tensor in backend.contract.inputs)
        self._backend = backend
        self._seconds: list[Second] = []

    def reset(self) -> None:
        """Forget the seconds that wait for their clip to be complete."""
        self._seconds = []

    def push(self, second: Second) -> Iterator[Segmented]:
        """Of a clip's last second all T are yielded; of others none."""
        self._seconds.append(second)
        if len(self._seconds) == self.bundle.manifest.clip.frames:
            yield from self.finish()

    def finish(self) -> Iterator[Segmented]:
        """What is left of the last clip; its last frame is repeated for what is missing."""
        seconds, self._seconds = self._seconds, []
        if not seconds:
            return
        clip = self.bundle.manifest.clip
        inputs = graph_inputs(window_of(seconds, clip), clip, self._backend.contract)
        maps = np.asarray(self._backend.run(inputs, ["probability"])["probability"])[0]
        for second, probability in zip(seconds, maps, strict=False):
            yield checked(second.shown, probability)

    def describe(self) -> dict[str, Any]:
        """What the backend says, and the mode."""
        return {"mode": "clip", **self._backend.describe()}


def checked(shown: SampledFrame, probability: Array) -> Segmented:
    """Put a second and its map together.

    Raises:
        BackendError: the map holds NaN or infinity.
    """
    if not np.isfinite(probability).all():
        raise BackendError(
            f"the network returned NaN or infinity for the second {shown.second}.",
            "Check the bundle with `avsbg verify`; a lower precision may overflow.",
        )
    return Segmented(shown, probability)
