"""From samples to masks: clip by clip, as the networks were published, or as a stream."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg.runtime.backends import Backend
from avsbg.runtime.backends.selection import Selection
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.media.log_mel import PATCH_HOP, PATCH_SAMPLES
from avsbg.runtime.media.samples import Sample, check_inputs, clip_inputs
from avsbg.runtime.streaming.frame_pair import MAX_GAP, FramePairing, StreamFrame, StreamMask
from avsbg.runtime.streaming.stream import Spacing

Array = NDArray[Any]


class Segmented(NamedTuple):
    """A sample and what the network says of it, in the network's size."""

    sample: Sample
    probability: Array  # float32 `[H, W]`, that a pixel sounds
    classes: Array | None = None  # uint8 `[H, W]`, numbers of classes; None of a network of binary masks


@dataclass(frozen=True)
class FrameMask:
    """The mask of a frame.

    Attributes:
        time: when the frame begins, seconds from the first frame of the source.
        mask: `[h, w]` in the source's size: bool, or uint8 numbers of classes.
        probability: float32 `[H, W]` in the network's size, that a pixel sounds.
    """

    time: float
    mask: Array
    probability: Array


def frame_mask(segmented: Segmented, threshold: float, size: tuple[int, int]) -> FrameMask:
    """Decide each pixel, by the threshold or by its class, and enlarge to `size`, width and height, by the nearest."""
    sample, probability, classes = segmented
    decided = (probability > threshold).astype(np.uint8) if classes is None else classes
    resized = np.asarray(Image.fromarray(decided).resize(size, Image.Resampling.NEAREST))
    return FrameMask(float(sample.time), resized > 0 if classes is None else resized, probability)


def _outputs(bundle: Bundle) -> list[str]:
    return ["probability", *(["classes"] if bundle.manifest.labels else [])]


def _segmented(sample: Sample, outputs: dict[str, Array]) -> Segmented:
    classes = outputs.get("classes")
    return Segmented(sample, outputs["probability"], None if classes is None else classes.astype(np.uint8))


class Segmenter(Protocol):
    """A network on one source at a time: `push` its samples in order, then `finish`."""

    bundle: Bundle
    mode: str  # `clip` or `stream`
    spec: str  # the backend that executes it, as the user named it
    selection: Selection | None  # the reasons for it, where the user named `auto`

    def reset(self) -> None:
        """Begin a new source: forget what was pushed."""

    def push(self, sample: Sample) -> Iterator[Segmented]:
        """Take the next sample; yields those that have become final, in order."""

    def finish(self) -> Iterator[Segmented]:
        """End the source: yields what is left, and forgets it all."""

    def describe(self) -> dict[str, Any]:
        """Describe what runs, as `Backend.describe` does."""


class ClipSegmenter:
    """Segments clips of T seconds that follow each other, as the published networks do.

    `backend` is open on a `clip` graph, and `spec` its name as the user wrote it. It is a `MediaError` if the graph
    takes something that cannot be made from a video.
    """

    mode = "clip"

    def __init__(self, backend: Backend, spec: str = "") -> None:
        check_inputs(backend.bundle.manifest, backend.contract)
        self.bundle, self.spec = backend.bundle, spec
        self.selection: Selection | None = None
        self._backend = backend
        self._samples: list[Sample] = []

    def reset(self) -> None:
        """Forget the samples that wait for their clip to be complete."""
        self._samples = []

    def push(self, sample: Sample) -> Iterator[Segmented]:
        """Yield all T samples at a clip's last one, else nothing."""
        self._samples.append(sample)
        if len(self._samples) == self.bundle.manifest.clip.frames:
            yield from self.finish()

    def finish(self) -> Iterator[Segmented]:
        """Yield what is left of the last clip; its last frame is repeated for what is missing."""
        samples, self._samples = self._samples, []
        if not samples:
            return
        inputs = clip_inputs(samples, self.bundle.manifest, self._backend.contract)
        results = self._backend.run(inputs, _outputs(self.bundle))
        for index, sample in enumerate(samples):
            segmented = _segmented(sample, {name: maps[0, index] for name, maps in results.items()})
            if not np.isfinite(segmented.probability).all():
                hint = "Check the bundle with `avsbg verify`; a lower precision may overflow."
                raise BackendError(f"the network returned NaN or infinity for the second {sample.number}.", hint)
            yield segmented

    def describe(self) -> dict[str, Any]:
        """Describe the backend and the mode."""
        return {"mode": self.mode, **self._backend.describe()}


class StreamSegmenter:
    """Segments a video or a live source with the graphs `encode` and `decode`, one encoder pass for each second.

    A second's mask comes with the next second, and is that of clip mode, but for the last second of each clip, whose
    partner is here the second after it. Samples come with their sound in place, so that no timeline is needed.

    Args:
        encode, decode: open backends of the two graphs, of the same class.
        spacing: where a frame's window of sound begins: `timestamp` with its second; `published` 0.96 s after the
            window before, from the clip's first second on, as in clip mode.
        spec: as the user named them.
        by_clips: let no second be the partner of one in another clip of T: all masks are then those of clip mode, but
            the last of a clip cut short.

    Raises:
        BackendError: the backends do not fit each other.
        MediaError: the graph takes something that cannot be made from a video.
    """

    mode = "stream"

    def __init__(
        self,
        encode: Backend,
        decode: Backend,
        spacing: Spacing = "published",
        spec: str = "",
        *,
        by_clips: bool = False,
    ) -> None:
        check_inputs(encode.bundle.manifest, encode.contract)
        self.bundle, self.spec = encode.bundle, spec
        self.selection: Selection | None = None
        self._encode, self._decode, self._spacing, self._by_clips = encode, decode, spacing, by_clips
        self._pairing = FramePairing(encode, decode, outputs=_outputs(self.bundle))
        self.reset()

    def reset(self) -> None:
        """Begin a new stream; nothing of the old one is computed any more."""
        self._pairing.drop()
        self._samples: deque[Sample] = deque()  # that wait for their masks
        self._last: int | None = None
        self._audio = np.zeros(0, np.float32)  # from where the next published window begins

    def push(self, sample: Sample) -> Iterator[Segmented]:
        """Yield the sample before, as a rule."""
        audio = self._window(sample)
        follows = self._last is None or sample.number - self._last <= MAX_GAP
        if self._by_clips and self._last is not None:
            clip = self.bundle.manifest.clip.frames
            follows = follows and sample.number // clip == self._last // clip
        masks = [] if follows else self._pairing.end_segment()
        self._last = sample.number
        self._samples.append(sample)
        time = sample.number + self.bundle.manifest.preprocessing.frame_offset
        masks += self._pairing.add(StreamFrame(sample.number, 0, time, sample.frame, audio))
        return self._segmented(masks)

    def finish(self) -> Iterator[Segmented]:
        """Yield the last sample; its partner is the one before it."""
        return self._segmented(self._pairing.end_segment())

    def describe(self) -> dict[str, Any]:
        """Describe both backends and the mode."""
        encode, decode = self._encode.describe(), self._decode.describe()
        return {"mode": self.mode, "spacing": self._spacing, "encode": encode, "decode": decode}

    def _window(self, sample: Sample) -> Array:
        """The sound of a sample's frame, float32 `[15600]`; silence where the source has ended.

        Where frames share their sound: the T seconds that end with the sample's, silence before the source's first.
        """
        clip = self.bundle.manifest.clip
        if clip.shared_sound:
            needed = clip.frames * clip.sample_rate
            follows = self._last == sample.number - 1
            self._audio = np.concatenate([self._audio if follows else self._audio[:0], sample.audio])[-needed:]
            return np.pad(self._audio, (needed - len(self._audio), 0))
        begins_clip = sample.number % clip.frames == 0
        if self._spacing == "timestamp" or begins_clip or self._last != sample.number - 1:
            self._audio = self._audio[:0]
        audio = np.concatenate([self._audio, sample.audio])
        self._audio = audio[PATCH_HOP:]
        return np.pad(audio[:PATCH_SAMPLES], (0, max(0, PATCH_SAMPLES - len(audio))))

    def _segmented(self, masks: list[StreamMask]) -> Iterator[Segmented]:
        for mask in masks:
            sample = self._samples.popleft()
            assert sample.number == mask.index
            yield _segmented(sample, mask.outputs)


class InterleavedSegmenter:
    """Segments several phases of a source, each with a segmenter of its own, and yields their masks in order of time.

    The phases share the backends. Each holds what its segmenter does: T samples in clip mode, whose frames are in the
    network's size but for the first phase, or the features of two frames in a stream.

    Args:
        create: makes the segmenter of a phase.
        measure: returns the seconds that a mask takes on this machine.
    """

    def __init__(self, create: Callable[[], Segmenter], measure: Callable[[], float] = lambda: math.inf) -> None:
        self._create, self.measure = create, measure
        first = create()
        self.bundle, self.mode, self.spec, self.selection = first.bundle, first.mode, first.spec, first.selection
        self._segmenters: dict[int, Segmenter] = {0: first}
        self._clear()

    def _clear(self) -> None:
        self._pushed: deque[int] = deque()  # numbers of samples whose masks have not been yielded
        self._samples: dict[tuple[int, int], Sample] = {}  # those, by phase and second
        self._done: dict[int, Segmented] = {}  # masks that wait for one before them
        self._newest: dict[int, int] = {}  # the last second of each phase that goes on

    def reset(self) -> None:
        """Begin a new source."""
        for segmenter in self._segmenters.values():
            segmenter.reset()
        self._clear()

    def push(self, sample: Sample) -> Iterator[Segmented]:
        """Yield the masks before which none is missing any more.

        A phase of which nothing has come for more than `MAX_GAP` seconds, as where a live source's rate has fallen, is
        ended: the masks of others do not wait for it.
        """
        yield from self._end_silent_phases(sample)
        phase = sample.phase
        if phase not in self._segmenters:
            self._segmenters[phase] = self._create()
        self._pushed.append(sample.number)
        self._samples[phase, sample.second] = sample
        self._newest[phase] = sample.second
        # A phase is a source of its own, whose samples are numbered by its seconds.
        yield from self._in_order(phase, self._segmenters[phase].push(replace(sample, number=sample.second)))

    def finish(self) -> Iterator[Segmented]:
        """Yield what is left of all phases."""
        for phase, segmenter in self._segmenters.items():
            yield from self._in_order(phase, segmenter.finish())
        self._clear()

    def describe(self) -> dict[str, Any]:
        """Describe what runs, and in how many phases."""
        return {**self._segmenters[0].describe(), "phases": len(self._segmenters)}

    def _end_silent_phases(self, sample: Sample) -> Iterator[Segmented]:
        for phase, second in list(self._newest.items()):
            if sample.second - second > MAX_GAP:
                del self._newest[phase]
                yield from self._in_order(phase, self._segmenters[phase].finish())

    def _in_order(self, phase: int, results: Iterator[Segmented]) -> Iterator[Segmented]:
        for result in results:
            sample = self._samples.pop((phase, result.sample.number))
            self._done[sample.number] = result._replace(sample=sample)
        while self._pushed and self._pushed[0] in self._done:
            yield self._done.pop(self._pushed.popleft())
