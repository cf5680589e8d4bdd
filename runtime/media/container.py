"""Media files: what one holds, its packets and its decoded frames, in memory that does not grow with the length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from numpy.typing import NDArray

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.appearance import UNTAGGED, ColourTags, read_colour, read_pixel_aspect
from avsbg.runtime.media.clock import Clock, find_clock, has_steps, packet_time
from avsbg.runtime.media.hwaccel import SOFTWARE_HINT, check_accelerated, open_container
from avsbg.runtime.media.orientation import UPRIGHT, Orientation, orientation_of
from avsbg.runtime.media.tracks import USUAL, Kind, Track, TrackNumbers, Tracks, choose_tracks, tagged_duration

# Fixed-rate files store times rounded to their time base, and drop the odd last frame; a cut file misses more.
MISSING_SECONDS = Fraction(1, 2)
# The average also counts how long the last frame lasts, which files state loosely.
RATE_TOLERANCE = Fraction(1, 100)
# Codecs whose parameters an MP4 header holds, with the order in which frames are displayed.
HEADER_CODECS = {"h264", "hevc"}
# A file's clock, in a format that knows no steps, seconds: decoding times do not go back, and a frame that is displayed
# for longer than this has sound beside it.
LARGEST_STEP_BACK, LARGEST_STEP_AHEAD = Fraction(1), Fraction(60)
# Formats that state a duration for each track.
STATED_BY_TRACK = {"mp4", "avi", "mxf"}
# For FFmpeg's swscale, BT.2020 with constant luminance (10) is BT.2020.
SWSCALE_MATRICES = {10: 9}
REPAIR = "Fetch or record the file again; `ffmpeg -i FILE NEW.mp4` keeps what is left of it."
# From 17.0 on PyAV converts a frame with a thread for each processor, and starts them anew for every one: that takes
# longer than converting it, and all that is there works already.
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True)
class VideoInfo:
    """A description of a video file or a live source."""

    path: Path | str  # the file, or how the user names the live source
    width: int  # in pixels, as displayed
    height: int
    rate: Fraction | None  # frames per second if constant
    start: Fraction  # the time stamp of the first frame, seconds; all other times count from it
    duration: Fraction | None  # seconds of video, if the file states it
    tracks: Tracks  # that are read
    orientation: Orientation = UPRIGHT  # of frames that carry no display matrix of their own
    clock: Clock = field(default=Clock(), compare=False)
    # End of the frames, in seconds of the file's own clock, and whether the file states it for all tracks together.
    stated_end: Fraction | None = field(default=None, compare=False)
    end_is_of_file: bool = field(default=False, compare=False)
    # Whether the file's header tells all that FFmpeg must know to decode it.
    header_suffices: bool = field(default=False, compare=False)
    pixel_aspect: Fraction = Fraction(1)  # width of a pixel by its height, as displayed
    colour: ColourTags = UNTAGGED
    mean_rate: Fraction | None = field(default=None, compare=False)  # frames per second on average, as the file has it
    hwaccel: str | None = None  # the hardware decoder of its frames, as `create_hwaccel` names it; None for software

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound track that can be decoded."""
        return self.tracks.audio is not None


@dataclass
class Damage:
    """Parts of a file that were passed over since they cannot be decoded; without one they are errors."""

    tolerated: tuple[Kind, ...] = ("video", "audio")  # tracks whose damage is passed over
    video: int = 0  # packets
    audio: int = 0
    cut_short: bool = False  # the file ends before the end that it states


def probe(
    path: Path, numbers: TrackNumbers = USUAL, damage: Damage | None = None, hwaccel: str | None = None
) -> VideoInfo:
    """Describe the video file at `path`.

    Args:
        path: the file.
        numbers: the tracks to read.
        damage: pass over what cannot be decoded.
        hwaccel: the hardware decoder that later decodes its frames; here one is decoded in software.

    Raises:
        MediaError: it is missing, is not a video, or has no frames; or a track that was asked for cannot be read.
    """
    container, header_suffices = _open_by_header(path)
    with container:
        tracks = choose_tracks(container, path, numbers)
        clock = _find_clock(path, tracks) if has_steps(container) else Clock()
        stream = container.streams[tracks.video.index]
        stream.thread_type = "NONE"  # threads would decode several frames before they return the first
        packets = clock.join(_demux(container, path, [stream], damage))
        first = next(decode_packets(packets, path, damage), None)
        if first is None:
            raise MediaError(f"{path} has a video track without a single picture that can be decoded.")
        start, orientation = time_of(first, path), orientation_of(first)
        stated_end, end_is_of_file = _stated_end(container, stream)
        return VideoInfo(
            path,
            *orientation.size(first.width, first.height),
            _constant_rate(stream),
            start,
            None if stated_end is None else max(Fraction(0), stated_end - start),
            tracks,
            orientation,
            clock,
            stated_end,
            end_is_of_file,
            header_suffices,
            read_pixel_aspect(stream, orientation),
            read_colour(first, stream),
            Fraction(stream.average_rate) if stream.average_rate else None,
            hwaccel,
        )


def _find_clock(path: Path, tracks: Tracks) -> Clock:
    with open_media(path) as container:
        streams = [container.streams[track.index] for track in (tracks.video, tracks.audio) if track is not None]
        try:
            return find_clock(container, streams)
        except av.FFmpegError:  # said when the frames are read
            return Clock()


def open_media(path: Path | str, hwaccel: str | None = None) -> Any:
    """Open a media file as an `av` input container, with FFmpeg's protocols other than plain files switched off.

    It is a `MediaError` if it is missing or not a media file, or if there is no such hardware decoder for its frames.
    """
    path = Path(path)
    if not path.exists():
        raise MediaError(f"there is no video at {path}.")
    if not path.is_file():
        raise MediaError(f"{path} is not a file.")
    return _open(path, hwaccel=hwaccel)


def open_video(video: VideoInfo, hwaccel: str | None = None) -> Any:
    """Open a file that was probed as `open_media` does, or faster, by its header alone, where that suffices."""
    if video.header_suffices:
        return _open(Path(video.path), by_header=True, hwaccel=hwaccel)
    return open_media(video.path, hwaccel)


def _open_by_header(path: Path) -> tuple[Any, bool]:
    """A container, and whether it was opened by its header: an MP4 file of H.264 or H.265 whose header lists all.

    FFmpeg otherwise decodes the first frames to find out what the header says as well, which is most of what opening
    costs. The decoded frames and sound are the same.
    """
    if path.is_file():
        with path.open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
        if is_mp4:
            container = _open(path, by_header=True)
            videos = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
            # Of a fragmented file it lists nothing.
            codecs = {one.codec_context and one.codec_context.name for one in videos}
            if videos and codecs <= HEADER_CODECS and all(one.frames for one in videos):
                return container, True
            container.close()
    return open_media(path), False


def _open(path: Path, *, by_header: bool = False, hwaccel: str | None = None) -> Any:
    options = {"protocol_whitelist": "file", **({"probesize": "32"} if by_header else {})}
    try:
        return open_container(str(path.resolve()), hwaccel, format="mp4" if by_header else None, options=options)
    except av.FFmpegError as error:
        hint = "It may be truncated or of a kind that FFmpeg does not know."
        raise MediaError(f"{path} cannot be read as a video: {error.strerror}.", hint) from error


def displayed(frame: Any, default: Orientation = UPRIGHT) -> NDArray[Any]:
    """A decoded frame as uint8 RGB `[height, width, 3]`, turned the way it is displayed (phones record sideways).

    `default` is the orientation of a frame that carries no display matrix. It is a `MediaError` if its colours cannot
    be converted.
    """
    try:
        pixels = frame.to_ndarray(format="rgb24", **_ONE_THREAD)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(f"frames in the colour matrix {frame.colorspace} cannot be made RGB: {error}.") from error
    return orientation_of(frame, default).apply(pixels)


def fit_frame(frame: Any, video: VideoInfo) -> Any:
    """A decoded frame in the size that its source began with, if that has changed; in a matrix that swscale knows."""
    frame.colorspace = SWSCALE_MATRICES.get(frame.colorspace, frame.colorspace)
    stored = video.orientation.size(video.width, video.height)
    if (frame.width, frame.height) == stored or orientation_of(frame, video.orientation) != video.orientation:
        return frame
    fitting = frame.reformat(width=stored[0], height=stored[1])
    fitting.pts, fitting.time_base = frame.pts, frame.time_base
    return fitting


def open_track(container: Any, track: Track, hwaccel: str | None = None) -> Any:
    """The stream of a track in an open container; its decoder takes as many threads as FFmpeg chooses.

    It is a `MediaError` if `hwaccel`, with which the container was opened, does not decode the frames of the track.
    """
    stream = container.streams[track.index]
    if stream.type == "video":
        if hwaccel is not None:
            check_accelerated(stream, hwaccel)
        stream.thread_type = "AUTO" if hwaccel is None else "NONE"  # a device has no use for several frames at a time
    return stream


def decode(container: Any, video: VideoInfo, *streams: Any, damage: Damage | None = None) -> Iterator[Any]:
    """The decoded frames of one or more tracks, in the file's order; errors as of the two below."""
    return decode_packets(packets_of(container, video, *streams, damage=damage), video.path, damage)


def packets_of(container: Any, video: VideoInfo, *streams: Any, damage: Damage | None = None) -> Iterator[Any]:
    """The packets of one or more tracks, on one clock; an empty one at the end of each, which empties its decoder.

    It is a `MediaError` if the file ends inside a packet, or before the last one that its index lists, or if its clock
    makes a step that its format does not know. With `damage` a file that ends too early just ends.
    """
    packets = _demux(container, video.path, list(streams), damage)
    return video.clock.join(packets) if has_steps(container) else _steady(packets, video)


def _demux(container: Any, path: Path | str, streams: list[Any], damage: Damage | None) -> Iterator[Any]:
    counts = dict.fromkeys((stream.index for stream in streams), 0)
    whole = True
    try:
        for packet in container.demux(*streams):
            if packet.size:
                counts[packet.stream_index] += 1
                whole = not packet.is_corrupt
            yield packet
    except av.FFmpegError as error:
        if damage is None or "video" not in damage.tolerated:
            raise MediaError(f"{path} cannot be read to its end: {error.strerror}.", REPAIR) from error
        damage.cut_short = True
    # The index of MP4 lists every packet that is to be read, edit lists applied; that of others only some. PyAV has it
    # from 17.0 on: before that, a file cut exactly between two packets is not recognised.
    indexed = [stream for stream in streams if "mp4" in container.format.name and hasattr(stream, "index_entries")]
    if not whole or any(counts[stream.index] < len(stream.index_entries) for stream in indexed):
        if damage is None or "video" not in damage.tolerated:
            raise MediaError(f"{path} is truncated: it ends within the data that it states.", REPAIR)
        damage.cut_short = True


def _steady(packets: Iterable[Any], video: VideoInfo) -> Iterator[Any]:
    """The same packets; a step of the video's clock is an error, but for a frame that is displayed for long."""
    last: Fraction | None = None
    for packet in packets:
        time = packet_time(packet)
        if packet.stream_index == video.tracks.video.index and time is not None:
            step = Fraction(0) if last is None else time - last
            if step < -LARGEST_STEP_BACK or (step > LARGEST_STEP_AHEAD and _sound_steps(video, time - step, time)):
                where = f"make a step of {float(step):+.2f} s at {float(time - step - video.start):.2f} s"
                raise MediaError(f"the time stamps of {video.path} {where}.", REPAIR)
            last = time
        yield packet


def _sound_steps(video: VideoInfo, begin: Fraction, end: Fraction) -> bool:
    """Whether the sound stops with the frames at `begin` and goes on at `end`, seconds of the file's clock."""
    if video.tracks.audio is None:
        return False
    with open_media(video.path) as container:
        stream = container.streams[video.tracks.audio.index]
        container.seek(int(begin / stream.time_base), stream=stream)
        times = filter(None, map(packet_time, container.demux(stream)))
        return next((time > end - 1 for time in times if time > begin + 1), False)


def decode_packets(packets: Iterable[Any], path: Path | str, damage: Damage | None = None) -> Iterator[Any]:
    """Decode packets with the decoders of their container; an error says how far it got.

    With `damage`, packets that cannot be decoded are counted there and passed over. A capture of a broadcast may begin
    anywhere: there, what comes before the first frame that can be decoded is passed over in any case.
    """
    reached: dict[str, float] = {}
    for packet in packets:
        kind = packet.stream.type
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if kind not in reached and has_steps(packet.stream.container):
                continue
            if damage is None or kind not in damage.tolerated:
                what = f"the sound of {path}" if kind == "audio" else path
                problem = f"{what} cannot be decoded past {reached.get(kind, 0):.2f} s: {error.strerror}."
                hint = f"{REPAIR} `avsbg run --skip-damaged` passes over what is damaged."
                if kind == "video" and packet.stream.codec_context.is_hwaccel:
                    hint = f"The device may not decode this kind of {packet.stream.codec_context.name}. {SOFTWARE_HINT}"
                raise MediaError(problem, hint) from error
            setattr(damage, kind, getattr(damage, kind) + 1)
            continue
        for frame in frames:
            reached[kind] = frame.time or reached.get(kind, 0.0)
            yield frame


def time_of(frame: Any, path: Path | str) -> Fraction:
    """The time stamp of a decoded frame in seconds."""
    return Fraction(ticks_of(frame, path) * frame.time_base)


def ticks_of(frame: Any, path: Path | str) -> int:
    """The time stamp of a decoded frame in its own unit, `time_base`, which is the same for all of a track.

    It is an error if it has none, as in raw streams without a container.
    """
    if frame.pts is None:
        raise MediaError(f"{path} has no time stamps.", "Put it into a container: `ffmpeg -i FILE -c copy NEW.mp4`.")
    return int(frame.pts)


def check_complete(video: VideoInfo, end: Fraction) -> None:
    """Check that the frames, which end at `end` seconds from the first, reach the end that the file states."""
    stated = video.stated_end
    if stated is None or video.start + end >= stated - MISSING_SECONDS:
        return
    # Some muxers of ASF count the begin of the frames once more.
    if video.end_is_of_file and _last_end(video) + video.start >= stated - MISSING_SECONDS:
        return
    ends = f"states that it ends at {float(stated):.2f} s, but its frames do at {float(video.start + end):.2f} s"
    raise MediaError(f"{video.path} is truncated: it {ends}.", REPAIR)


def _last_end(video: VideoInfo) -> Fraction:
    """The end of the last packet of any track, seconds of the file's clock."""
    with open_media(video.path) as container:
        ends = (
            Fraction((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in container.demux()
            if packet.size and packet.pts is not None
        )
        return max(ends, default=Fraction(0))


def frame_length(frame: Any, stream: Any) -> Fraction:
    """The time that a frame is displayed, seconds."""
    if frame.duration:
        return Fraction(frame.duration * frame.time_base)
    return 1 / Fraction(stream.average_rate) if stream.average_rate else Fraction(0)


def _constant_rate(stream: Any) -> Fraction | None:
    """The frame rate, if the average agrees with the one that the time stamps fit; else it varies."""
    average, fitting = stream.average_rate, stream.base_rate
    if not average or not fitting or abs(average / fitting - 1) > RATE_TOLERANCE:
        return None
    return Fraction(fitting)


def _stated_end(container: Any, stream: Any) -> tuple[Fraction | None, bool]:
    """The end of the frames that the file states, on its own clock; and whether that is of all its tracks together.

    That is the track's duration in MP4 and AVI, its tag in Matroska, and else the file's. What FFmpeg says of formats
    whose clock may make steps is no statement of theirs: it looks at what is there.
    """
    begin = Fraction((stream.start_time or 0) * stream.time_base)
    if stream.duration is not None and STATED_BY_TRACK & set(container.format.name.split(",")):
        # FFmpeg shortens an AVI file's duration to what is there; its number of frames is what the file states.
        frames = stream.frames / Fraction(stream.average_rate) if stream.average_rate else Fraction(0)
        stated = Fraction(stream.duration * stream.time_base)
        return begin + (max(stated, frames) if container.format.name == "avi" else stated), False
    if (tagged := tagged_duration(stream)) is not None:
        return tagged, False
    if container.duration is not None and not has_steps(container):
        return Fraction(container.duration + (container.start_time or 0), av.time_base), True
    return None, False
