"""From the decoded pictures and sound of a live source to seconds for the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.bundle.manifest import ClipRecord, PreprocessingRecord
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.audio import Aligner
from avsbg.runtime.media.container import VideoInfo, displayed, time_of
from avsbg.runtime.media.samples import Second, resize
from avsbg.runtime.media.video import SampledFrame, frame_deadline

# How long a second waits for its sound, in time stamps of the picture, until silence stands for it.
SOUND_PATIENCE = 1
# A greater step of the time stamps is a source that began anew.
LARGEST_STEP = 60


@dataclass
class LiveCounters:
    """What happened to a live source.

    Attributes:
        damaged: packets that could not be decoded, and were passed over.
        late_sound: seconds whose sound did not come in time.
    """

    damaged: int = 0
    late_sound: int = 0


class SecondPicker:
    """Puts the seconds of a live source together from its decoded pictures and sound.

    Args:
        video: what is known of the source.
        counters: where sound that came too late is counted.
        clip: the bundle's clip contract.
        preprocessing: the bundle's rules.
        silent: silence in place of the sound.

    Attributes:
        second: the one that is being filled.
    """

    def __init__(
        self,
        video: VideoInfo,
        counters: LiveCounters,
        clip: ClipRecord,
        preprocessing: PreprocessingRecord,
        *,
        silent: bool,
    ) -> None:
        self.second = 0
        self._video, self._counters, self._clip = video, counters, clip
        self._offset, self._start = preprocessing.frame_offset, video.start
        self._aligner = None
        if video.has_sound and not silent:
            self._aligner = Aligner(str(video.path), self._start, clip.sample_rate)
        self._heard: NDArray[Any] = np.zeros(0, np.float32)
        self._waiting: deque[SampledFrame] = deque()  # for their sound
        self._last: Any = None
        self._shown = Fraction(0)

    def picture(self, frame: Any) -> Iterator[Second]:
        """Take a picture; the seconds that it completes."""
        time = time_of(frame, self._video.path) - self._start
        if self._last is not None and not -1 < time - self._shown < LARGEST_STEP:
            step = f"from {float(self._shown):.2f} to {float(time):.2f} s"
            raise MediaError(
                f"the time stamps of {self._video.path} step {step}.",
                "It was probably started anew; start this anew as well.",
            )
        while self._last is not None and time > frame_deadline(self.second, self._clip.frames, None, self._offset):
            self._choose(Fraction(1))
        self._last, self._shown = frame, time
        yield from self._complete(time)

    def sound(self, frame: Any) -> Iterator[Second]:
        """Take sound; the seconds that it completes."""
        if self._aligner is not None:
            self._heard = np.concatenate([self._heard, *self._aligner.push(frame)])
            if len(self._heard) > LARGEST_STEP * self._clip.sample_rate:
                raise MediaError(f"{self._video.path} has sent sound, but no picture for {LARGEST_STEP} s.")
            yield from self._complete(self._shown)

    def finish(self, duration: float | None) -> Iterator[Second]:
        """What is left: as of a file, a last second counts if half of it is there."""
        end = self._shown if duration is None else min(self._shown, Fraction(duration))
        while self._last is not None and (self.second == 0 or self.second + Fraction(1, 2) <= end):
            self._choose(max(Fraction(1, 100), min(Fraction(1), end - self.second)))
        while self._waiting:
            yield self._take()

    def _choose(self, length: Fraction) -> None:
        self._waiting.append(SampledFrame(self.second, self._shown, length, displayed(self._last)))
        self.second += 1

    def _complete(self, now: Fraction) -> Iterator[Second]:
        while self._waiting:
            complete = self._aligner is None or len(self._heard) >= self._clip.sample_rate
            if not complete and now < self._waiting[0].second + 1 + SOUND_PATIENCE:
                return
            yield self._take()

    def _take(self) -> Second:
        shown = self._waiting.popleft()
        samples = round(shown.length * self._clip.sample_rate)
        heard, self._heard = self._heard[:samples], self._heard[samples:]
        if self._aligner is not None and len(heard) < samples:
            self._counters.late_sound += 1
            # What comes too late is dropped, so that what follows stays with its picture.
            self._aligner.skip(samples - len(heard))
        heard = np.pad(heard, (0, samples - len(heard)))
        return Second(shown, resize(shown.pixels, self._clip.width, self._clip.height), heard)
