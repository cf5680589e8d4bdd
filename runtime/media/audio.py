"""The sound of a video: mono, at the network's rate, from the first frame on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.container import REPAIR, Damage, VideoInfo, decode, open_track, open_video, time_of
from avsbg.runtime.threads import Prefetch

if TYPE_CHECKING:
    from typing_extensions import Self

# Encoders and clocks jitter by milliseconds; what is further off is a gap, an overlap or a clock that has drifted.
TOLERANCE = Fraction(1, 10)
# Time stamps are rounded to the container's unit.
ROUNDING = Fraction(1, 500)
# A longer gap is more likely a damaged time stamp than silence.
LONGEST_GAP = 3600
# Most sound that may be decoded ahead.
SECONDS_AHEAD = 4
# Planes of an FFmpeg frame that PyAV reads safely.
PLANES = 8
# A file's sound is resampled in pieces of at least so many samples: each call costs as much as resampling a thousand.
AT_ONCE = 16384


class AudioReader:
    """The sound of a video from its first frame on: mono float32, channels averaged as in the published preparation.

    Inside its `with` block it is decoded in a thread of its own, a few seconds ahead.

    Raises:
        MediaError: the file has no audio track; when reading, its sound cannot be decoded.
    """

    def __init__(self, video: VideoInfo, sample_rate: int, damage: Damage | None = None) -> None:
        if not video.has_audio:
            hint = "Give a video with sound; `avsbg run --no-sound` gives the network silence instead."
            problem = f"{video.path} has no audio track that can be decoded, and the network uses audio."
            raise MediaError(problem, hint)
        self._blocks: Iterator[NDArray[Any]] = iter(())
        self._video, self._rate, self._damage = video, sample_rate, damage
        self._rest = np.zeros(0, np.float32)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        blocks = _join_blocks(decode_audio(self._video, self._rate, self._damage), self._rate)
        self._blocks = self._stack.enter_context(Prefetch(blocks, SECONDS_AHEAD))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, samples: int) -> NDArray[Any]:
        """The next `samples` samples, float32 `[samples]`; silence where the track has ended."""
        blocks, length = [self._rest], len(self._rest)
        while length < samples and (block := next(self._blocks, None)) is not None:
            blocks.append(block)
            length += len(block)
        joined = np.concatenate(blocks)
        taken, self._rest = joined[:samples], joined[samples:]
        return np.pad(taken, (0, samples - len(taken)))


def _join_blocks(blocks: Iterable[NDArray[Any]], samples: int) -> Iterator[NDArray[Any]]:
    """The same in larger blocks: handing one over to another thread costs as much as making a small one."""
    held: list[NDArray[Any]] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= samples:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def decode_audio(video: VideoInfo, sample_rate: int, damage: Damage | None = None) -> Iterator[NDArray[Any]]:
    """The sound of a video from its first frame on, mono float32, in blocks; the video has a track of sound."""
    track = video.tracks.audio
    assert track is not None
    joins = video.clock.begins.get(track.index, ())
    with open_video(video) as container:
        frames = decode(container, video, open_track(container, track), damage=damage)
        yield from align_audio(frames, str(video.path), video.start, sample_rate, joins)


def align_audio(
    frames: Iterable[Any], name: str, start: Fraction, sample_rate: int, joins: Sequence[Fraction] = ()
) -> Iterator[NDArray[Any]]:
    """Decoded sound through an `Aligner`, in blocks."""
    aligner = Aligner(name, start, sample_rate, at_once=AT_ONCE, joins=joins)
    for frame in frames:
        yield from aligner.push(frame)
    yield from aligner.finish()


def order_frames(frames: Iterable[Any], name: str) -> Iterator[Any]:
    """Decoded frames and sound, for an encoder: sound whose time stamps never step back, all of the first one's kind.

    A frame of sound without a time stamp follows the one before; one that lies for the greater part before its end is
    left out, as where two recordings are joined.
    """
    end: Fraction | None = None
    first: tuple[str, str, int] | None = None  # format, layout and rate
    kind: tuple[str, str, int] | None = None
    converter: Any = None
    for frame in frames:
        if isinstance(frame, av.AudioFrame):
            begin = time_of(frame, name) if frame.pts is not None else end
            length = Fraction(frame.samples, frame.sample_rate)
            if begin is None or (end is not None and begin < end - length / 2):
                continue
            begin = begin if end is None else max(begin, end)
            end = begin + length
            # In samples: a container's unit may be coarser than what an encoder makes of a frame.
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(begin / frame.time_base)
            before, kind = kind, (frame.format.name, frame.layout.name, frame.sample_rate)
            first = first or kind
            if kind != first:  # a broadcast goes from stereo to 5.1, and back
                converter = av.AudioResampler(*first) if kind != before or converter is None else converter
                yield from converter.resample(frame)
                continue
        yield frame


class Aligner:
    """Makes mono blocks at one rate of decoded sound, which follow each other without a gap from `start` on.

    Where the time stamps leave a gap there is silence, and where they step back the overlap is dropped, so that sound
    and frames stay together; differences below `TOLERANCE` are taken for jitter.

    Args:
        name: the source, for messages.
        start: the time stamp of the first sample wanted, seconds.
        sample_rate: of the blocks, Hz.
        at_once: samples that may wait to be resampled together; the result is the same.
        joins: time stamps that are kept to exactly, seconds: what follows is of another recording.
    """

    def __init__(
        self, name: str, start: Fraction, sample_rate: int, *, at_once: int = 0, joins: Sequence[Fraction] = ()
    ) -> None:
        self._name, self._start, self._rate, self._at_once = name, start, sample_rate, at_once
        self._resampler = _Resampler(name, sample_rate, at_once)
        self._position: Fraction | None = None  # seconds from `start`, of the last frame that was placed
        self._since = 0  # samples from there on
        self._since_rate = 1
        self._next: tuple[int, int] | None = None  # time stamp and rate of a frame that follows exactly
        self._drop = 0  # samples still to be dropped
        self._joins = deque(join - start for join in joins)

    def push(self, frame: Any) -> Iterator[NDArray[Any]]:
        """The blocks, float32 `[n]`, that a decoded frame completes."""
        # Most frames follow the one before to the sample, and so keep its distance to the clock.
        if self._next is None or (frame.pts, frame.sample_rate) != self._next:
            yield from self._place(frame)
        self._since += frame.samples
        if self._next is not None:
            self._next = frame.pts + frame.samples, frame.sample_rate
        yield from self._kept(self._resampler.push(frame))

    def _place(self, frame: Any) -> Iterator[NDArray[Any]]:
        """Hold a frame's time stamp against the end of the frame before."""
        position = (self._position or Fraction(0)) + Fraction(self._since, self._since_rate)
        untimed = frame.pts is None and self._position is not None
        begin = position if untimed else time_of(frame, self._name) - self._start
        gap = begin - position
        # The recording before may reach beyond the join: its frames follow each other.
        joins = bool(self._joins) and begin >= self._joins[0] and abs(gap) > ROUNDING
        while joins and self._joins and begin >= self._joins[0]:
            self._joins.popleft()
        if self._position is None or joins or abs(gap) > TOLERANCE:
            if gap > LONGEST_GAP:
                where = f"has a gap of {float(gap):.0f} s at {float(position):.2f} s"
                raise MediaError(f"the sound of {self._name} {where}.", REPAIR)
            if gap > 0:
                yield from self.finish()
                self._resampler = _Resampler(self._name, self._rate, self._at_once)
                silence, whole = round(gap * self._rate), np.zeros(self._rate, np.float32)
                yield from self._kept(whole[: silence - done] for done in range(0, silence, self._rate))
            else:
                self._drop += round(-gap * self._rate)
            position = begin
        self._position, self._since, self._since_rate = position, 0, frame.sample_rate
        ticks_are_samples = frame.pts is not None and frame.time_base * frame.sample_rate == 1
        self._next = (frame.pts, frame.sample_rate) if ticks_are_samples else None

    def finish(self) -> Iterator[NDArray[Any]]:
        """The rest that the resampler holds."""
        return self._kept(self._resampler.finish())

    def skip(self, samples: int) -> None:
        """Drop the next samples, which someone has stopped waiting for."""
        self._drop += samples

    def _kept(self, blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        for block in blocks:
            rest, self._drop = block[self._drop :], max(0, self._drop - len(block))
            if len(rest):
                yield rest


class _Resampler:
    """Makes decoded sound mono and resamples it.

    Channels are averaged first where samples are float, as those of AAC, MP3 and Opus are: there is less to resample.
    Other formats are made float by the resampler. Both are linear, so that their order is a matter of rounding.

    Sound of eight or more channels is taken in the packed formats alone: PyAV's planar ones read beyond their end.
    """

    def __init__(self, name: str, rate: int, at_once: int) -> None:
        self._name, self._rate, self._at_once = name, rate, at_once
        self._kind: tuple[str, str] | None = None  # format and layout of the frames
        self._packer = av.AudioResampler(format="flt")
        self._resampler = av.AudioResampler(format="flt", rate=rate)
        self._held: list[NDArray[Any]] = []
        self._held_rate = 0

    def push(self, frame: Any) -> list[NDArray[Any]]:
        """The blocks that a frame completes."""
        if (kind := (frame.format.name, frame.layout.name)) != self._kind:
            before = self.finish() if self._kind is not None else []
            self._kind, self._packer = kind, av.AudioResampler(format="flt")
            if before or frame.format.name != "fltp":
                self._resampler = av.AudioResampler(format="flt", rate=self._rate)
            return before + self.push(frame)
        if frame.format.name != "fltp":
            return self._flush() + self._resample(self._resampler, frame)
        blocks = self._flush() if frame.sample_rate != self._held_rate else []
        if frame.layout.nb_channels < PLANES:
            self._held.append(frame.to_ndarray().mean(axis=0, dtype=np.float32))
        else:
            self._held += self._resample(self._packer, frame)
        self._held_rate = frame.sample_rate
        return blocks + self._flush() if sum(map(len, self._held)) >= self._at_once else blocks

    def finish(self) -> list[NDArray[Any]]:
        """The rest that is held."""
        return self._flush() + self._resample(self._resampler, None)

    def _flush(self) -> list[NDArray[Any]]:
        if not self._held:
            return []
        mono = av.AudioFrame.from_ndarray(np.concatenate(self._held)[None], format="flt", layout="mono")
        mono.sample_rate, self._held = self._held_rate, []
        return self._resample(self._resampler, mono)

    def _resample(self, resampler: Any, frame: Any) -> list[NDArray[Any]]:
        try:
            return [_average_channels(piece) for piece in resampler.resample(frame)]
        except ValueError as error:  # PyAV's for a change of format, and FFmpeg's for what it cannot resample.
            raise MediaError(f"the sound of {self._name} cannot be resampled: {error}", REPAIR) from error


def _average_channels(frame: Any) -> NDArray[Any]:
    """The mean of a packed float frame's channels, float32 `[samples]`."""
    channels = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T
    return np.ascontiguousarray(channels).mean(axis=0, dtype=np.float32)
