"""Requests of the page, their limits, and their work in a process of its own that ends when it takes too long."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from avsbg.errors import AvsbgError
from avsbg.progress import Progress
from avsbg.runtime.errors import MediaError, WorkerError
from avsbg.runtime.media.bounds import bound_pixels
from avsbg.runtime.media.container import VideoInfo, frame_length, open_media, packets_of, probe
from avsbg.runtime.processes import IsolatedWorker, Opener

# Width times height: 3840 x 2160.
MOST_PIXELS = 3840 * 2160
# Seconds that the last packet of sound may end after the last frame.
_LONGER_SOUND = 1
logger = logging.getLogger("avsbg.page")


@dataclass(frozen=True)
class Limits:
    """Bounds of a request, and of all of them together."""

    megabytes: int = 100  # of a file
    seconds: int = 60  # of its video
    patience: int = 600  # seconds that the work may take
    workers: int = 2  # requests that are worked on at the same time; each has a process
    waiting: int = 20  # requests that may wait
    minutes: int = 10  # that files are kept
    gigabytes: int = 8  # of memory of the process that works on a request

    @property
    def total_megabytes(self) -> int:
        """Megabytes of all files together: of the largest ones that are worked on or wait, and as much for results."""
        return 2 * self.megabytes * (self.workers + self.waiting)


@dataclass(frozen=True)
class PageRequest:
    """A video and what is wanted of it."""

    video: Path
    folder: Path  # an empty one, for what is made
    backend: str = "auto"
    threshold: float = 0.5
    silent: bool = False
    attention: bool = False  # attention maps too


@dataclass(frozen=True)
class PageResult:
    """The outcome of a video."""

    overlay: Path  # its video
    archive: Path  # all files of the run, a .zip
    summary: dict[str, Any]  # as of `segment_video`
    sheet: Path | None = None  # attention maps
    no_sheet: str | None = None  # why they could not be drawn


def check_video(path: Path, limits: Limits) -> VideoInfo:
    """Check a video's size, and return what its header tells; a `MediaError` says why it is refused.

    The length is that of all packets, whatever the header states: recordings of a browser state none. FFmpeg may have
    to decode a frame to tell the size of frames; `open_bounded` bounds that.
    """
    if (size := path.stat().st_size) > limits.megabytes * 2**20:
        problem = f"the file has {size / 2**20:.1f} MB; this page takes up to {limits.megabytes} MB."
        raise MediaError(problem, "Cut it, or record it again.")
    with open_media(path) as container:
        for stream in container.streams.video:
            if stream.codec_context is not None:
                _check_size(stream.codec_context.width, stream.codec_context.height)
    video = probe(path)
    _check_size(video.width, video.height)
    if video.duration is not None and video.duration > limits.seconds:
        _refuse_length(f"{float(video.duration):.1f} s long", limits)
    tracks = [track for track in (video.tracks.video, video.tracks.audio) if track is not None]
    with open_media(path) as container:
        streams = [container.streams[track.index] for track in tracks]
        for packet in packets_of(container, video, *streams):
            if packet.size and packet.pts is not None:
                length = Fraction((packet.duration or 0) * packet.time_base)
                if packet.stream.type == "video":
                    length = frame_length(packet, packet.stream)
                if packet.pts * packet.time_base + length > video.start + limits.seconds + _LONGER_SOUND:
                    _refuse_length(f"longer than {limits.seconds} s", limits)
    return video


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        frames = f"{width} x {height}" if width * height else "larger, or of no stated size"
        raise MediaError(f"the video's frames are {frames}; this page takes up to 3840 x 2160.", "Make them smaller.")


def _refuse_length(length: str, limits: Limits) -> NoReturn:
    problem = f"the video is {length}; this page takes up to {limits.seconds} s."
    raise MediaError(problem, "Cut it, or record it again.")


@contextmanager
def open_bounded(
    open_work: Opener[PageRequest, PageResult], limits: Limits, progress: Progress
) -> Iterator[Callable[[PageRequest], PageResult]]:
    """Bound this process, which is there for one request, and open its work."""
    import resource  # of Unix alone

    bound_pixels(MOST_PIXELS + MOST_PIXELS // 4)
    # Its data, not its addresses: a driver of GPUs reserves far more of those than there is memory.
    most, (_, hard) = limits.gigabytes * 2**30, resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with open_work(progress) as work:
        yield work


def run_request(
    open_work: Opener[PageRequest, PageResult], request: PageRequest, limits: Limits, progress: Progress
) -> PageResult:
    """Work on a request in a process of its own, which is ended when its time is up.

    Raises:
        AvsbgError: what is wrong with the video or the backend; the process crashed, or its time is up.
    """
    late = threading.Event()
    with IsolatedWorker(partial(open_bounded, open_work, limits), progress) as worker:

        def end() -> None:
            late.set()
            worker.stop()

        timer = threading.Timer(limits.patience, end)
        timer.start()
        try:
            return worker(request)
        except MemoryError as error:
            raise WorkerError(f"the work takes more than {limits.gigabytes} GB of memory, and was ended.") from error
        except WorkerError as error:
            if late.is_set():
                raise WorkerError(f"the work took longer than {limits.patience} s, and was ended.") from error
            hint = "The file is probably damaged."
            raise WorkerError(f"the process that decodes and segments has ended: {error.message}", hint) from error
        finally:
            timer.cancel()


def describe_error(error: AvsbgError, request: PageRequest, doer: str | None = None) -> str:
    """An error for whoever sent a request: of its own files the names, and nothing of this machine's.

    What is wrong with the bundle, or with a backend, is told where the page was started: here only that the `doer`, the
    request's backend unless another is named, cannot do it.
    """
    if not isinstance(error, MediaError | WorkerError):
        doer = doer or f"the backend {request.backend}"
        logger.warning("%s could not do what was asked for: %s", doer, error)
        return f"{doer} cannot do this here. The reason is told where the page was started."
    return str(error).replace(str(request.video), request.video.name).replace(f"{request.folder}/", "")


def make_archive(folder: Path, run: Path) -> Path:
    """Pack the files of a run into `masks.zip` in a folder."""
    return Path(shutil.make_archive(str(folder / "masks"), "zip", run))
