"""Masks of an endless stream: one encoder pass for each new frame, and the masks of clip mode.

with open_stream(bundle) as stream:
    for frame, samples in source:
        for mask in stream.push(frame, samples):
            show(mask.timestamp, mask.probability > 0.5)
    for mask in stream.close():
        ...
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends import Backend, BackendSpec
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError, MediaError
from avsbg.runtime.media.log_mel import PATCH_HOP, PATCH_SAMPLES
from avsbg.runtime.streaming import frame_pair
from avsbg.runtime.streaming.audio_timeline import AudioCounters, AudioTimeline
from avsbg.runtime.streaming.frame_pair import MAX_GAP, OUTPUTS, FramePairing, Latency, StreamFrame, StreamMask

__all__ = ["Latency", "Spacing", "Stream", "StreamCounters", "StreamMask", "open_stream"]

Array = NDArray[Any]
Spacing = Literal["timestamp", "published"]

# Seconds that a frame waits for its sound, on the frames' own clock, before silence replaces what is missing.
PATIENCE = 2.0


@dataclass
class StreamCounters:
    """Counts of a stream so far."""

    sound: AudioCounters
    frames: int = 0  # taken by `push`
    masks: int = 0  # returned
    segments: int = 0  # unbroken runs of frames begun
    incomplete: int = 0  # frames part of whose sound never came, so that silence stands for it


class Stream:
    """Segments frames as they come.

    The sound of a frame is a window of 0.975 s (one log-mel patch) that is placed by timestamps, whatever the cadence
    of the frames and the size of the chunks. A network whose frames share their sound takes the T seconds that end with
    the frame's own. See `docs/streaming.md` for what is exact and what is not.

    Args:
        encode, decode: open backends of the two graphs, of the same class.
        latency: `one-frame`: a frame's mask comes with the next frame, and is that of clip mode. `zero`: it comes at
            once, with the frame before as its partner, as the last frame of a clip has it.
        spacing: `timestamp`: the window begins `frame_offset` before the frame. `published`: windows follow each other
            every 0.96 s within T seconds, as the clips' do in the published preparation, and begin anew every T
            seconds; it reproduces clip mode on frames that are one second apart.
        max_gap: frames further apart than this, in seconds, are not partners; the later one begins a new segment.
        patience: how long, in seconds of the frames' timestamps, a frame waits for its sound.
        frame_offset: how far into its second a frame lies; by default the bundle's.
        outputs: what is returned for a frame: `probability`, `logits`.

    Raises:
        BackendError: the two backends do not fit each other, or an option does not exist.
    """

    def __init__(  # noqa: PLR0917  (each is an option by name)
        self,
        encode: Backend,
        decode: Backend,
        latency: Latency = "one-frame",
        spacing: Spacing = "timestamp",
        max_gap: float = MAX_GAP,
        patience: float = PATIENCE,
        frame_offset: float | None = None,
        outputs: Sequence[str] = OUTPUTS,
    ) -> None:
        self._pairing = FramePairing(encode, decode, latency, outputs)
        if spacing not in (known := get_args(Spacing)):
            raise BackendError(f"unknown spacing {spacing!r} of a stream.", f"Choose one of: {', '.join(known)}.")
        for name, seconds in (("max_gap", max_gap), ("patience", patience)):
            if not seconds >= 0:
                raise BackendError(f"{name} is a number of seconds from 0 on, not {seconds}.")
        manifest = encode.bundle.manifest
        self.bundle = encode.bundle
        self._spacing, self._max_gap, self._patience = spacing, max_gap, patience
        self._offset = manifest.preprocessing.frame_offset if frame_offset is None else frame_offset
        self._clip, self._uses_audio = manifest.clip, manifest.uses_audio
        shared = self._clip.shared_sound and self.takes_waveform
        # Samples of a frame's window of sound.
        self._window = self._pairing.audio.single_shape[1] if shared else PATCH_SAMPLES
        self._timeline = AudioTimeline(manifest.clip.sample_rate)
        self.counters = StreamCounters(self._timeline.counters)
        self._waiting: deque[StreamFrame] = deque()
        self._origin = 0.0  # where the sound of the current segment begins
        self._newest: float | None = None  # the timestamp of the last frame pushed
        self._closed = False

    @property
    def takes_waveform(self) -> bool:
        """Whether sound is a waveform that may come apart from the frames, and not something made of it with each."""
        return self._pairing.audio.name in ("waveform", "log_mel")

    @property
    def waiting(self) -> int:
        """The number of frames that wait for their sound."""
        return len(self._waiting)

    def push(self, frame: Array, sound: Array | None = None, timestamp: float | None = None) -> list[StreamMask]:
        """Take a new frame, and sound.

        Args:
            frame: uint8 `[H, W, 3]`, RGB; one of another size than the graph's is resized as published.
            sound: what `push_sound` takes. A bundle that takes audio embeddings takes the frame's own here, `[128]`.
            timestamp: when the frame was taken, in seconds on any clock; by default one second after the frame before,
                the first one at `frame_offset`.

        Returns:
            the masks that have become final, oldest first.

        Raises:
            MediaError: the frame or the sound is none, or the timestamp is not later than the last frame's. The frame
                was not taken, and the stream goes on.
            BackendError: the network failed. The frames not yet returned are lost, and the stream can go on.
        """
        self._check_open()
        following = self._offset if self._newest is None else self._newest + self._clip.seconds_per_frame
        time = following if timestamp is None else float(timestamp)
        if not math.isfinite(time) or (self._newest is not None and time <= self._newest):
            problem = f"a frame's timestamp must be later than that of the frame before, {self._newest}, not {time}."
            raise MediaError(problem, "If the clock starts again, call cut() first.")
        pixels = self._checked_frame(frame)
        embedding = None
        if self._uses_audio and not self.takes_waveform:
            embedding = self._checked_embedding(sound)
        elif sound is not None and self.takes_waveform:
            self._timeline.push(sound)
        masks: list[StreamMask] = []
        if self._newest is None or time - self._newest > self._max_gap:
            if self._newest is not None:
                masks += self._finish_segment()
            self._origin = time - self._offset
            self.counters.segments += 1
        self._newest = time
        index, segment = self.counters.frames, self.counters.segments - 1
        self._waiting.append(StreamFrame(index, segment, time, pixels, embedding, self._window_start(time)))
        self.counters.frames += 1
        return masks + self._advance()

    def push_sound(self, samples: Array, timestamp: float | None = None) -> list[StreamMask]:
        """Take sound that comes apart from the frames, in chunks of any size.

        Args:
            samples: float32 `[n]`, mono, at the bundle's sample rate, in [-1, 1].
            timestamp: the time of the first sample on the frames' clock; by default the end of the chunk before, and 0
                for the first.

        Returns:
            the masks that have become final.

        Raises:
            MediaError: the samples are no float32 vector of finite values, the timestamp is not finite, or the bundle
                takes embeddings, which come with the frames.
            BackendError: as `push`.
        """
        self._check_open()
        if not self.takes_waveform:
            taken = self._pairing.audio.name.replace("_", " ")
            raise MediaError(
                f"this bundle takes {taken}s: give each frame its own in push(frame, {taken.split()[-1]})."
            )
        self._timeline.push(samples, timestamp)
        return self._advance()

    def cut(self) -> list[StreamMask]:
        """End the segment, e.g. where a source is replaced: the next frame has no partner before it, on a new clock.

        Returns the masks of all frames pushed and not yet returned; silence stands for sound that has not come.
        """
        self._check_open()
        masks = self._finish_segment()
        self._timeline.clear()
        self._newest = None
        return masks

    def close(self) -> list[StreamMask]:
        """End the stream; returns masks as `cut` does, and nothing if it was closed already."""
        if self._closed:
            return []
        try:
            return self.cut()
        finally:
            self._closed = True

    def abandon(self) -> None:
        """End the stream and compute nothing more."""
        self._closed = True
        self._drop()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the stream was closed.", "Open another one.")

    def _checked_frame(self, frame: Array) -> Array:
        frame = np.asarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise MediaError(f"a frame is uint8 [H, W, 3], RGB, not {frame.dtype} {list(frame.shape)}.")
        if frame.shape[:2] == (self._clip.height, self._clip.width):
            return frame
        from avsbg.runtime.media.samples import resize  # it needs PyAV, which a stream of the right size does not

        return resize(frame, self._clip.width, self._clip.height)

    def _checked_embedding(self, embedding: Array | None) -> Array:
        shape = self._pairing.audio.single_shape[1:]
        array = np.asarray(embedding)
        if embedding is None or array.dtype != np.float32 or array.shape != shape:
            name = self._pairing.audio.name.replace("_", " ")
            got = "none" if embedding is None else f"{array.dtype} {list(array.shape)}"
            raise MediaError(f"this bundle takes {name} float32 {list(shape)} with each frame, not {got}.")
        return array

    def _window_start(self, time: float) -> float:
        if self._clip.shared_sound:
            return time - self._offset + self._clip.seconds_per_frame - self._window / self._clip.sample_rate
        if self._spacing == "timestamp":
            return time - self._offset
        elapsed = time - self._offset - self._origin
        period = self._clip.frames * self._clip.seconds_per_frame
        # Timestamps are sums of floats: without the margin, the first frame of a block could fall into the one before.
        block = math.floor(elapsed / period + 1e-6) * period
        return self._origin + block + (elapsed - block) * PATCH_HOP / self._clip.sample_rate

    def _advance(self, *, wait: bool = True) -> list[StreamMask]:
        """Encode the frames whose sound is there, or all if not `wait`; the masks that become final by it."""
        masks: list[StreamMask] = []
        try:
            while self._waiting and self._find_sound(self._waiting[0], wait=wait):
                masks += self._pairing.add(self._waiting.popleft())
        except BaseException:
            self._drop()
            raise
        self.counters.masks += len(masks)
        return masks

    def _find_sound(self, frame: StreamFrame, *, wait: bool) -> bool:
        """Give a frame its sound; False if that has not come and the frame should wait."""
        if not self._uses_audio or frame.audio is not None:
            return True
        self._timeline.forget(frame.start)
        before = self._timeline.counters.missing
        frame.audio = self._timeline.window(frame.start, self._window)
        if frame.audio is None:
            assert self._newest is not None
            overdue = self._newest - (frame.start + self._window / self._clip.sample_rate) > self._patience
            if wait and not overdue:
                return False
            frame.audio = self._timeline.window(frame.start, self._window, complete=False)
        self.counters.incomplete += self._timeline.counters.missing > before
        return True

    def _finish_segment(self) -> list[StreamMask]:
        """The masks of all frames pushed so far; nothing of them is kept."""
        masks = self._advance(wait=False)
        last = self._pairing.end_segment()
        self.counters.masks += len(last)
        return masks + last

    def _drop(self) -> None:
        self._pairing.drop()
        self._waiting.clear()


@contextmanager
def open_stream(
    bundle: Bundle,
    backend: str = "onnxruntime",
    *,
    operator: str | None = None,
    precision: str | None = None,
    backend_options: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[Stream]:
    """Open a stream on a bundle that was exported with `--stream`.

    Args:
        bundle: an open bundle.
        backend: that executes both graphs.
        operator: the decoder's implementation of the operator, one of the backend's `OPERATORS`.
        precision: of both graphs; by default float32.
        backend_options: further options of the backend, e.g. `threads`.
        options: those of `Stream`.

    Raises:
        BackendError: the bundle has no graphs for streams, or the backend refuses what is asked for.
    """
    spec = BackendSpec.parse(":".join(filter(None, (backend, operator, precision))))
    with frame_pair.create_streamed_clip(bundle, spec, **(backend_options or {})) as pair:
        stream = Stream(pair.encode, pair.decode, **options)
        try:
            yield stream
        finally:
            stream.abandon()
