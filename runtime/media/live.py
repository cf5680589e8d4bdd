"""Reading cameras, microphones and network streams: seconds for the network, and the same packets for the overlay."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any

import av

from avsbg.runtime.bundle.manifest import ClipRecord, PreprocessingRecord
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.container import VideoInfo, displayed_size, time_of, video_stream
from avsbg.runtime.media.live_seconds import LiveCounters, SecondPicker
from avsbg.runtime.media.samples import Second
from avsbg.runtime.media.sources import WHITELIST, LiveSource
from avsbg.runtime.threads import Channel, ChannelClosedError, Prefetch

if TYPE_CHECKING:
    from typing_extensions import Self

# Seconds until a silent network is given up: to connect, and between two packets.
TIMEOUT = (10.0, 10.0)
# Packets that may wait for their masks per second of a clip, and in all: far beyond what a working overlay leaves.
PACKETS = 400
# Packets on their way from a camera and a microphone that are read at the same time.
MERGED = 64


class LiveReader:
    """An open live source. Use it as a context manager.

    Its picture and sound may come from one source, or from a camera and a microphone, whose time stamps are then those
    of the wall clock.

    Args:
        source: where the picture comes from, and the sound if it has some.
        microphone: where the sound comes from instead.
        stop: set by whoever wants the source to end.
        duration: seconds after which it ends by itself; None for never.

    Attributes:
        video: what is known of the source; valid inside the block.
        failure: why it ended, if it was not meant to.
    """

    def __init__(
        self,
        source: LiveSource,
        microphone: LiveSource | None,
        *,
        stop: threading.Event,
        duration: float | None = None,
    ) -> None:
        self.counters = LiveCounters()
        self.failure: MediaError | None = None
        self.video: VideoInfo
        self._source, self._microphone = source, microphone
        self._stop, self._duration = stop, duration
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._containers = [stack.enter_context(_open(each)) for each in (self._source, self._microphone) if each]
            picture, sound = self._containers[0], self._containers[-1]
            self._picture = video_stream(picture, self._source.name)
            # The camera's own microphone is not listened to if another one was named.
            self._sound = sound.streams.audio[0] if sound.streams.audio else None
            if self._microphone is not None and self._sound is None:
                raise MediaError(f"{self._microphone.name} gives no sound.", "A microphone is named like alsa:default.")
            self._decoders = {track.type: track.codec_context for track in self._tracks()}
            self._packets = self._merged(stack)
            self._held: list[Any] = []
            first = self._first_picture()
            width, height = displayed_size(first)
            start = time_of(first, self._source.name)
            self.video = VideoInfo(self._source.name, width, height, None, start, None, self._sound is not None)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _tracks(self) -> list[Any]:
        return [track for track in (self._picture, self._sound) if track is not None]

    def _first_picture(self) -> Any:
        for packet in self._packets:
            self._held.append(packet)
            for frame in self._decode(self._decoders[packet.stream.type], packet):
                if packet.stream.type == "video":
                    # Decoded once more, when the packets are read again.
                    self._decoders = {track.type: copy_decoder(track) for track in self._tracks()}
                    self.counters.damaged = 0
                    return frame
        raise MediaError(f"{self._source.name} ended before its first picture.")

    def _merged(self, stack: ExitStack) -> Iterator[Any]:
        """The packets of picture and sound, read at the same time if there are two sources."""
        if len(self._containers) == 1:
            return self._demux(self._containers[0], self._tracks())
        if self._microphone is not None and self._source.waits and self._microphone.waits:
            # Neither has a pace of its own, so what came first is a matter of the time stamps.
            each = [self._demux(*pair) for pair in zip(self._containers, [[self._picture], [self._sound]], strict=True)]
            return heapq.merge(*each, key=lambda packet: (packet.pts or 0) * packet.time_base)
        merged: Channel[Any] = Channel(MERGED)
        for container, track in zip(self._containers, self._tracks(), strict=True):
            reader = stack.enter_context(Prefetch(self._demux(container, [track]), MERGED))
            pump = threading.Thread(target=self._pump, args=(reader, merged), name="avsbg-merge", daemon=True)
            pump.start()
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
            return list(decoder.decode(packet))
        except av.FFmpegError:  # a broken packet, or one whose reference was sent before we listened
            self.counters.damaged += 1
            return []

    def seconds(
        self, clip: ClipRecord, preprocessing: PreprocessingRecord, *, silent: bool, copies: Channel[Any] | None
    ) -> Iterator[Second]:
        """The source second by second; ends when it does, or is told to. A source that fails ends too: see `failure`.

        Args:
            clip: the bundle's clip contract.
            preprocessing: the bundle's rules.
            silent: silence in place of the sound.
            copies: where each packet goes as well, for `frames`.
        """
        picker = SecondPicker(self.video, self.counters, clip, preprocessing, silent=silent)
        try:
            for packet in chain(self._held, self._packets):
                self._held = []
                if copies is not None:
                    if len(copies) >= PACKETS * (clip.frames + 10):
                        raise MediaError(
                            f"{len(copies)} packets of {self._source.name} wait for the overlay, which is too slow.",
                            "Use --no-overlay.",
                        )
                    copies.put(packet)
                kind = packet.stream.type
                for frame in self._decode(self._decoders[kind], packet):
                    yield from picker.picture(frame) if kind == "video" else picker.sound(frame)
                if self._stop.is_set() or (self._duration is not None and picker.second >= self._duration):
                    break
        except MediaError as error:
            self.failure = self.failure or error
        finally:
            if copies is not None:
                copies.close()
        yield from picker.finish(self._duration)

    def frames(self, copies: Channel[Any]) -> Iterator[Any]:
        """The decoded pictures and sound of the packets in `copies`, from the first picture on."""
        decoders = {track.type: copy_decoder(track) for track in self._tracks()}
        video = self.video
        for packet in copies:
            for frame in self._decode(decoders[packet.stream.type], packet):
                if packet.stream.type == "video":
                    fits = (frame.width, frame.height) == (video.width, video.height)
                    yield frame if fits or frame.rotation % 360 else _reformatted(frame, video)
                elif time_of(frame, self._source.name) >= video.start:
                    yield frame


def copy_decoder(track: Any) -> Any:
    """A second decoder of a track, for those who decode its packets on their own."""
    original = track.codec_context
    decoder: Any = av.CodecContext.create(original.codec, "r")
    if original.extradata:
        decoder.extradata = original.extradata
    if track.type == "video":
        decoder.width, decoder.height, decoder.pix_fmt = original.width, original.height, original.pix_fmt
        decoder.thread_type = "AUTO"
    else:
        decoder.sample_rate, decoder.layout, decoder.format = original.sample_rate, original.layout, original.format
    return decoder


def _reformatted(frame: Any, video: VideoInfo) -> Any:
    """A picture of a source that has changed its size, in the size that it began with."""
    fitting = frame.reformat(width=video.width, height=video.height)
    fitting.pts, fitting.time_base = frame.pts, frame.time_base
    return fitting


def _open(source: LiveSource) -> Any:
    options = dict(source.options)
    if source.device is None:
        options["protocol_whitelist"] = WHITELIST
    elif source.device == "v4l2":
        options.setdefault("timestamps", "abs")  # the clock that ALSA's time stamps are of
    try:
        return av.open(source.address, format=source.device, options=options, timeout=TIMEOUT)
    except (av.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{source.name} cannot be opened: {reason}.", _hint(source)) from error


def _hint(source: LiveSource) -> str:
    if source.device is None:
        return "Check the address, and that whoever sends is there."
    return "Check that the device is there, that you may read it, and that nobody else does."
