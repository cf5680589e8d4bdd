"""Sources without an end: cameras, microphones and network streams, read as samples."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.bundle.manifest import Manifest
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.appearance import read_colour, read_pixel_aspect
from avsbg.runtime.media.audio import Aligner, order_frames
from avsbg.runtime.media.container import VideoInfo, displayed, fit_frame, frame_length, open_track, time_of
from avsbg.runtime.media.hwaccel import create_hwaccel, open_container
from avsbg.runtime.media.orientation import orientation_of
from avsbg.runtime.media.places import Place, Places
from avsbg.runtime.media.samples import Sample, SoundWindows, place_samples, resize
from avsbg.runtime.media.sources import WHITELIST, LiveSource
from avsbg.runtime.media.tracks import USUAL, TrackNumbers, Tracks, choose_track, choose_tracks
from avsbg.runtime.media.video import last_places
from avsbg.runtime.threads import Channel, ChannelClosedError, Prefetch

if TYPE_CHECKING:
    from typing_extensions import Self

# Seconds until a silent network is given up: to connect, and between two packets.
TIMEOUT = (10.0, 10.0)
# Packets that may wait for their masks per second of a clip, and in all: far beyond what a working overlay leaves.
PACKETS = 400
# Packets on their way from a camera and a microphone that are read at the same time.
MERGED = 64
# Time that a frame waits for its sound, by the frames' time stamps, until silence takes its place.
SOUND_PATIENCE = 1
# Frames, or pieces of sound, before the first one with a time stamp: RTP has none until its clock is known.
UNTIMED = 250
# A larger step of the time stamps means that the source was restarted.
LARGEST_STEP = 60


@dataclass
class LiveCounters:
    """Faults of a live source that it went on after."""

    damaged: int = 0  # packets that could not be decoded, and were passed over
    late_sound: int = 0  # seconds whose sound did not come in time


class LiveReader:
    """An open live source. Use it as a context manager.

    Its frames and sound may come from one `source`, or from a camera and a `microphone`, whose time stamps are then
    those of the wall clock. It ends after `duration` seconds, or when `stop` is set. `hwaccel` names
    the hardware decoder of its frames, as `create_hwaccel` takes it.
    """

    video: VideoInfo  # valid inside the block

    def __init__(
        self,
        source: LiveSource,
        microphone: LiveSource | None,
        *,
        stop: threading.Event,
        duration: float | None,
        numbers: TrackNumbers = USUAL,
        hwaccel: str | None = None,
    ) -> None:
        self.counters = LiveCounters()
        self.failure: MediaError | None = None  # why it ended, if it was not meant to
        self._source, self._microphone = source, microphone
        self._stop, self._duration, self._numbers, self._hwaccel = stop, duration, numbers, hwaccel
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._containers = [stack.enter_context(_open(self._source, self._hwaccel))]
            if self._microphone is not None:
                self._containers.append(stack.enter_context(_open(self._microphone)))
            name = self._source.name
            tracks = choose_tracks(self._containers[0], name, self._numbers)
            if self._microphone is not None:
                # The camera's own microphone is not used if another one was named.
                sound = choose_track(self._containers[1], "audio", self._microphone.name)
                if sound is None:
                    hint = "A microphone is named like alsa:default."
                    raise MediaError(f"{self._microphone.name} gives no sound.", hint)
                tracks = Tracks(tracks.video, sound)
            self._video = open_track(self._containers[0], tracks.video, self._hwaccel)
            self._audio = None if tracks.audio is None else open_track(self._containers[-1], tracks.audio)
            self._tracks = [track for track in (self._video, self._audio) if track is not None]
            self._decoders = {track.type: track.codec_context for track in self._tracks}
            self._packets = self._merged(stack)
            self._held: list[Any] = []
            self._untimed: dict[Any, int] = {}  # left out, by decoder; UNTIMED once one had a time stamp
            first = self._first_frame()
            orientation = orientation_of(first)
            size = orientation.size(first.width, first.height)
            aspect, colour = read_pixel_aspect(self._video, orientation), read_colour(first, self._video)
            mean = self._video.average_rate
            self.video = VideoInfo(
                name, *size, None, time_of(first, name), None, tracks, orientation, pixel_aspect=aspect, colour=colour,
                mean_rate=Fraction(mean) if mean else None, hwaccel=self._hwaccel,
            )  # fmt: skip
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _first_frame(self) -> Any:
        for packet in self._packets:
            self._held.append(packet)
            for frame in self._decode(self._decoders[packet.stream.type], packet):
                if packet.stream.type == "video":
                    self._rewind()
                    return frame
        # As many frames as there are processors may still be in the decoder.
        if rest := self._drain(self._decoders["video"], self._video):
            self._rewind()
            return rest[0]
        raise MediaError(f"{self._source.name} ended before its first picture.")

    def _rewind(self) -> None:
        """Let the packets that were read be decoded once more."""
        for decoder in self._decoders.values():
            decoder.flush_buffers()
        self._untimed.clear()
        self.counters.damaged = 0

    def _merged(self, stack: ExitStack) -> Iterator[Any]:
        """The packets of frames and sound, read at the same time if there are two sources."""
        if len(self._containers) == 1:
            return self._demux(self._containers[0], self._tracks)
        if self._microphone is not None and self._source.waits and self._microphone.waits:
            # Neither has a pace of its own, so what came first is a matter of the time stamps.
            each = [self._demux(*pair) for pair in zip(self._containers, [[self._video], [self._audio]], strict=True)]
            return heapq.merge(*each, key=lambda packet: (packet.pts or 0) * packet.time_base)
        merged: Channel[Any] = Channel(MERGED)
        for container, track in zip(self._containers, self._tracks, strict=True):
            reader = stack.enter_context(Prefetch(self._demux(container, [track]), MERGED))
            threading.Thread(target=self._pump, args=(reader, merged), name="avsbg-merge", daemon=True).start()
        stack.callback(merged.abort)
        return merged

    def _pump(self, reader: Prefetch[Any], merged: Channel[Any]) -> None:
        try:
            for packet in reader:
                merged.put(packet)
        except ChannelClosedError:
            pass
        except MediaError as error:
            self.failure = self.failure or error
        finally:
            merged.close()

    def _demux(self, container: Any, tracks: list[Any]) -> Iterator[Any]:
        try:
            yield from (packet for packet in container.demux(*tracks) if packet.size)
        except av.FFmpegError as error:
            raise MediaError(f"{self._source.name} stopped: {error.strerror}.", "What came before was kept.") from error

    def _decode(self, decoder: Any, packet: Any) -> list[Any]:
        try:
            frames = list(decoder.decode(packet))
        except av.FFmpegError:  # a broken packet, or one whose reference was sent before we were there
            if decoder in self._decoders.values():  # the overlay's meets the same ones
                self.counters.damaged += 1
            return []
        while frames and frames[0].pts is None and (before := self._untimed.get(decoder, 0)) < UNTIMED:
            self._untimed[decoder] = before + 1
            del frames[0]
        if frames:
            self._untimed[decoder] = UNTIMED  # one without a time stamp is an error from now on
        return frames

    def _drain(self, decoder: Any, track: Any) -> list[Any]:
        """The frames that a decoder still holds."""
        end = av.Packet()
        end.time_base = track.time_base
        return self._decode(decoder, end)

    def samples(
        self, manifest: Manifest, *, silent: bool, packets: Channel[Any] | None, rate: Fraction = Fraction(1)
    ) -> Iterator[Sample]:
        """The source second by second; ends when it does, or is told to. A source that fails ends too: see `failure`.

        At a `rate` above 1, masks a second, the seconds of all phases come. Each packet of frames goes into `packets`
        as well, for `frames`, and so does the decoded sound.
        """
        assembler = _SampleAssembler(self.video, self._video, self.counters, manifest, silent=silent, rate=rate)
        try:
            for packet in chain(self._held, self._packets):
                self._held = []
                if packets is not None and (waiting := len(packets)) >= PACKETS * (manifest.clip.frames + 10):
                    problem = f"{waiting} packets of {self._source.name} wait for the overlay, which is too slow."
                    raise MediaError(problem, "Use --no-overlay.")
                kind = packet.stream.type
                decoded = self._decode(self._decoders[kind], packet)
                if packets is not None:
                    for item in [packet] if kind == "video" else decoded:
                        packets.put(item)
                yield from assembler.add(kind, decoded)
                if self._stop.is_set() or (self._duration is not None and assembler.begin >= self._duration):
                    break
            for track in self._tracks:
                yield from assembler.add(track.type, self._drain(self._decoders[track.type], track))
        except MediaError as error:
            self.failure = self.failure or error
        finally:
            if packets is not None:
                packets.close()
        yield from assembler.finish(self._duration)

    def frames(self, packets: Channel[Any]) -> Iterator[Any]:
        """The decoded frames and sound of `packets`, from the first frame on."""
        yield from order_frames(self._overlay_frames(packets), self._source.name)

    def _overlay_frames(self, packets: Channel[Any]) -> Iterator[Any]:
        decoder = copy_decoder(self._video, self._hwaccel)
        for item in packets:
            if not isinstance(item, av.AudioFrame):
                yield from (fit_frame(frame, self.video) for frame in self._decode(decoder, item))
            elif item.pts is None or time_of(item, self._source.name) >= self.video.start:
                yield item
        yield from (fit_frame(frame, self.video) for frame in self._drain(decoder, self._video))


class _SampleAssembler:
    """Puts the samples of a live source together from its decoded frames and sound."""

    def __init__(
        self,
        video: VideoInfo,
        stream: Any,
        counters: LiveCounters,
        manifest: Manifest,
        *,
        silent: bool,
        rate: Fraction = Fraction(1),
    ) -> None:
        self._number = 0  # of the place that is being filled
        self._places = Places(rate, manifest.clip.frames, manifest.preprocessing.frame_offset, None)
        self._video, self._stream, self._counters, self._clip = video, stream, counters, manifest.clip
        self._aligner = None
        if video.has_audio and manifest.uses_audio and not silent:
            self._aligner = Aligner(str(video.path), video.start, self._clip.sample_rate)
        self._audio: NDArray[Any] = np.zeros(0, np.float32)  # that no place has had
        self._heard = 0  # samples before it
        self._is_late = False  # whether sound of the place that is taken did not come in time
        self._windows = SoundWindows(self._read, self._clip.sample_rate)
        # For their sound: number, place, time, length and pixels, but for the first phase in the network's size.
        self._waiting: deque[tuple[int, Place, Fraction, Fraction, NDArray[Any]]] = deque()
        self._last: Any = None
        self._time = Fraction(0)  # when `_last` begins

    @property
    def begin(self) -> Fraction:
        """The time from the first frame on at which the place begins that is being filled."""
        return self._places[self._number].begin

    def add(self, kind: str, frames: Iterable[Any]) -> Iterator[Sample]:
        """Take decoded frames or sound; yields the samples that they complete."""
        for frame in frames:
            yield from self._add_frame(frame) if kind == "video" else self._add_sound(frame)

    def _add_frame(self, frame: Any) -> Iterator[Sample]:
        time = time_of(frame, self._video.path) - self._video.start
        if self._last is not None and not -1 < time - self._time < LARGEST_STEP:
            step = f"step from {float(self._time):.2f} to {float(time):.2f} s"
            hint = "It was probably restarted; restart this command as well."
            raise MediaError(f"the time stamps of {self._video.path} {step}.", hint)
        while self._last is not None and time > self._places[self._number].deadline:
            self._choose(Fraction(1))
        self._last, self._time = frame, time
        yield from self._complete(time)

    def _add_sound(self, frame: Any) -> Iterator[Sample]:
        if self._aligner is not None:
            self._audio = np.concatenate([self._audio, *self._aligner.push(frame)])
            if len(self._audio) > LARGEST_STEP * self._clip.sample_rate:
                raise MediaError(f"{self._video.path} has sent sound, but no picture for {LARGEST_STEP} s.")
            yield from self._complete(self._time)

    def finish(self, duration: float | None) -> Iterator[Sample]:
        """Yield what is left: as of a file, a last second counts if half of it is there."""
        end = Fraction(0) if self._last is None else self._time + frame_length(self._last, self._stream)
        if duration is not None:
            end = min(end, Fraction(duration))
        if self._last is not None:
            for _, length in last_places(self._places, self._number, end):
                self._choose(max(Fraction(1, 100), length))
        while self._waiting:
            yield self._take()

    def _choose(self, length: Fraction) -> None:
        place = self._places[self._number]
        pixels = displayed(fit_frame(self._last, self._video), self._video.orientation)
        if place.phase:
            pixels = self._resize(pixels)
        self._waiting.append((self._number, place, self._time, length, pixels))
        self._number += 1

    def _complete(self, now: Fraction) -> Iterator[Sample]:
        while self._waiting:
            _, place, _, _, _ = self._waiting[0]
            begin, count = place_samples(place, Fraction(1), self._clip.sample_rate)
            complete = self._aligner is None or self._heard + len(self._audio) >= begin + count
            if not complete and now < place.begin + 1 + SOUND_PATIENCE:
                return
            yield self._take()

    def _take(self) -> Sample:
        number, place, time, length, pixels = self._waiting.popleft()
        self._is_late = False
        audio = self._windows.read(place, length)
        self._counters.late_sound += self._is_late
        frame = pixels if place.phase else self._resize(pixels)
        return Sample(number, time, length, pixels, frame, audio, place if self._places.rate > 1 else None)

    def _resize(self, pixels: NDArray[Any]) -> NDArray[Any]:
        return resize(pixels, self._clip.width, self._clip.height)

    def _read(self, count: int) -> NDArray[Any]:
        """The next samples; silence for those that have not come, or of a source without sound."""
        audio, self._audio = self._audio[:count], self._audio[count:]
        if self._aligner is not None and len(audio) < count:
            self._is_late = True
            # Sound that comes too late is dropped, so that later sound stays with its frame.
            self._aligner.skip(count - len(audio))
        self._heard += count
        return np.pad(audio, (0, count - len(audio)))


# A decoder's parameters beside its codec and extradata, which a track may state.
PARAMETERS = ("codec_tag", "width", "height", "pix_fmt", "bits_per_coded_sample")
COLOUR_PARAMETERS = ("color_range", "colorspace", "color_primaries", "color_trc")


def copy_decoder(track: Any, hwaccel: str | None = None) -> Any:
    """A second decoder of a video track, for those who decode its packets on their own.

    The display matrix is none of a decoder's parameters, so that its frames carry that of their packets alone.
    """
    original = track.codec_context
    decoder: Any = av.CodecContext.create(original.codec, "r", None if hwaccel is None else create_hwaccel(hwaccel))
    if original.extradata:
        decoder.extradata = original.extradata
    for name in PARAMETERS + COLOUR_PARAMETERS:
        setattr(decoder, name, getattr(original, name))
    decoder.thread_type = original.thread_type
    return decoder


def _open(source: LiveSource, hwaccel: str | None = None) -> Any:
    options = dict(source.options)
    if source.device is None:
        options["protocol_whitelist"] = WHITELIST
    elif source.device == "v4l2":
        options.setdefault("timestamps", "abs")  # the clock that ALSA's time stamps are of
    try:
        return open_container(source.address, hwaccel, format=source.device, options=options, timeout=TIMEOUT)
    except (av.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = "Check that the device is there, that you may read it, and that nobody else does."
        if source.device is None:
            hint = "Check the address, and that the sender is running."
        raise MediaError(f"{source.name} cannot be opened: {reason}.", hint) from error
