"""A bundle's network on a backend of this machine, for programs and for the command line alike.

with Model(Bundle.open(path)) as model:
    for frame in model.segment("video.mp4"):
        show(frame.time, frame.mask)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbg.errors import AvsbgError
from avsbg.runtime import backends
from avsbg.runtime.backends import Backend, BackendSpec
from avsbg.runtime.backends.base import accuracy_warning
from avsbg.runtime.backends.selection import AUTO, Selection, measure_backend, select_backend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BundleError, MediaError
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.live import LiveReader
from avsbg.runtime.media.places import MaskRate
from avsbg.runtime.media.samples import Sample, read_samples
from avsbg.runtime.media.sources import LiveSource, parse_source
from avsbg.runtime.segment.pipeline import Options, RateOption, read_ahead
from avsbg.runtime.segment.run import choose_rate, make_places
from avsbg.runtime.segment.segmenter import (
    ClipSegmenter,
    FrameMask,
    InterleavedSegmenter,
    Segmenter,
    StreamSegmenter,
    frame_mask,
)
from avsbg.runtime.streaming.frame_pair import StreamedClip, create_streamed_clip
from avsbg.runtime.streaming.stream import Spacing, Stream

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("avsbg.model")


class Model:
    """A network that segments videos, live sources and single frames.

    A backend is opened when it is first needed and stays open until `close`, or the end of a `with` block. A choice of
    `auto` and a missed accuracy threshold are logged by the logger `avsbg.model`.

    Args:
        bundle: an open bundle.
        backend: `BACKEND[:IMPLEMENTATION][:PRECISION]`, or `auto[:PRECISION]` for the fastest that can run here.
        trust: load an engine that was not built by this user on this machine: it is native code.
        allow_failed_accuracy: run a precision or engine that missed its accuracy threshold, with a warning.
        options: others of the backend, e.g. `device`, `threads` and `engine`; None for its default.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str = AUTO,
        *,
        trust: bool = False,
        allow_failed_accuracy: bool = False,
        **options: Any,
    ) -> None:
        self.bundle, self.backend = bundle, backend
        self.selections: dict[str, Selection] = {}  # of `auto`, for `clip` and for `stream`
        self._seconds: dict[str, float] = {}  # of a clip, for `clip` and for `stream`
        self._asked = BackendSpec.parse(backend)
        self._options = {**options, "trust": trust or None, "allow_failed_accuracy": allow_failed_accuracy or None}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; the model can be used again, and then opens it anew."""
        self._stack.close()
        for name in ("clip_backend", "stream_backend"):
            self.__dict__.pop(name, None)

    @property
    def has_stream(self) -> bool:
        """Whether the bundle has the graphs of a stream."""
        return self.bundle.manifest.has_stream

    @cached_property
    def clip_backend(self) -> Backend:
        """The open backend of whole clips; a `BackendError` says why it cannot be opened.

        It is a `BundleError` if the bundle was updated meanwhile.
        """
        return self._open("clip")

    @cached_property
    def stream_backend(self) -> StreamedClip:
        """The open backends of a stream's two graphs; a `BackendError` if the bundle has none, or as `clip_backend`."""
        backend = self._open("stream")
        assert isinstance(backend, StreamedClip)
        return backend

    def segmenter(self, *, stream: bool | None = None, live: bool = False, rate: RateOption = 1) -> Segmenter:
        """Make what turns samples of one source into masks.

        Args:
            stream: frame by frame; None for a live source if the bundle has the graphs.
            live: whether the source is live: the sound is then taken from where the frame is.
            rate: masks a second; at more than one, each phase has the masks of clip mode, or of a stream if the
                source is live. With `auto` the first phase has those of one mask a second.
        """
        streams = bool(stream or (stream is None and live and self.has_stream))
        backend = self.stream_backend if streams else self.clip_backend

        def create() -> Segmenter:
            if not isinstance(backend, StreamedClip):
                segmenter: Segmenter = ClipSegmenter(backend, self.backend)
            else:
                spacing: Spacing = "timestamp" if live else "published"
                by_clips = not live and rate not in (1, AUTO)
                segmenter = StreamSegmenter(backend.encode, backend.decode, spacing, self.backend, by_clips=by_clips)
            segmenter.selection = self.selections.get(segmenter.mode)
            return segmenter

        role = "stream" if streams else "clip"
        return create() if rate == 1 else InterleavedSegmenter(create, lambda: self._seconds_per_mask(role))

    def segment(
        self,
        source: str | Path,
        *,
        threshold: float = 0.5,
        silent: bool = False,
        stream: bool | None = None,
        rate: MaskRate = 1,
        hwaccel: str | None = None,
    ) -> Iterator[FrameMask]:
        """Segment a video file or a live source, as `avsbg run` does.

        Args:
            source: a file, an address (`rtsp://`, ...) or a camera (`/dev/video0`), as `avsbg run` takes it.
            threshold: a pixel sounds where its probability exceeds this; networks of classes take no other.
            silent: give the network silence in place of the sound.
            stream: frame by frame in place of clips; None for live sources if the bundle has the graphs.
            rate: masks a second, a whole number; of a file `every-frame` too.
            hwaccel: the hardware decoder of the frames, such as `cuda` or `vaapi:/dev/dri/renderD128`.

        Returns:
            The masks, as they become final, in order. A live source goes on until it ends or the iteration does. One
            that does not wait, such as a camera, is read meanwhile: where the network or the program cannot follow, the
            rate falls, and then the oldest seconds are lost.

        Raises:
            MediaError: the source cannot be read, lacks the sound that the network uses, or there is no such decoder.
            BackendError: the backend cannot be opened, or the network failed.
            BundleError: the bundle was updated before its backend was open.
        """
        parsed = parse_source(str(source))
        options = Options(threshold=threshold, silent=silent, rate=rate, hwaccel=hwaccel)
        segmenter = self.segmenter(stream=stream, live=isinstance(parsed, LiveSource), rate=rate)
        return self._masks(segmenter, parsed, options)

    @contextmanager
    def stream(self, **options: Any) -> Iterator[Stream]:
        """Open a stream of frames and sound that a program pushes; options are those of `Stream`."""
        pair = self.stream_backend
        stream = Stream(pair.encode, pair.decode, **options)
        try:
            yield stream
        finally:
            stream.abandon()

    def _masks(self, segmenter: Segmenter, source: Path | LiveSource, options: Options) -> Iterator[FrameMask]:
        manifest = self.bundle.manifest
        with ExitStack() as stack:
            if isinstance(source, LiveSource):
                stop = threading.Event()
                reader = stack.enter_context(
                    LiveReader(source, None, stop=stop, duration=None, hwaccel=options.hwaccel)
                )
                if not reader.video.has_audio and manifest.uses_audio and not options.silent:
                    raise MediaError(f"{source.name} has no sound, and the network uses audio.", "Use silent=True.")
                rate = choose_rate(segmenter, options, reader.video.mean_rate).masks
                video, read = reader.video, reader.samples(manifest, silent=options.silent, packets=None, rate=rate)
                ahead, _ = read_ahead(read, source.policy, make_places(rate, manifest, None))
                samples: Iterator[Sample] = stack.enter_context(ahead)
                stack.callback(stop.set)
            else:
                video = probe(source, hwaccel=options.hwaccel)
                rate = choose_rate(segmenter, options, video.rate or video.mean_rate).masks
                samples = read_samples(video, manifest, silent=options.silent, rate=rate)
            segmenter.reset()
            for sample in samples:
                for result in segmenter.push(sample):
                    yield frame_mask(result, options.threshold, (video.width, video.height))
            for result in segmenter.finish():
                yield frame_mask(result, options.threshold, (video.width, video.height))
            if isinstance(source, LiveSource) and reader.failure is not None:
                raise reader.failure

    def _seconds_per_mask(self, role: str) -> float:
        """The seconds of a mask, as `auto` measured them or as they are measured once."""
        if role not in self._seconds:
            selection = self.selections.get(role)
            backend = self.stream_backend if role == "stream" else self.clip_backend
            spec = self.backend if selection is None else selection.backend
            known = None if selection is None else selection.seconds.get(spec)
            self._seconds[role] = known or measure_backend(self.bundle, spec, backend, role=role, options=self._options)
        return self._seconds[role] / self.bundle.manifest.clip.frames

    def _open(self, role: str) -> Backend:
        """Choose and open a backend, all of whose files are of the bundle that was loaded."""
        updated = BundleError(f"{self.bundle.path} was updated while it was opened.", "Load it again.")
        with ExitStack() as stack:
            try:
                backend = stack.enter_context(self._choose(role))
            except (AvsbgError, FileNotFoundError) as error:  # perhaps of a file that the update took away
                if self.bundle.is_current():
                    raise
                raise updated from error
            if not self.bundle.is_current():
                raise updated
            self._stack.enter_context(stack.pop_all())
        return backend

    def _choose(self, role: str) -> Backend:
        """The backend that was named, or the choice of `auto`; not yet open."""
        spec = self._asked
        if spec.backend == AUTO:
            selection = select_backend(
                self.bundle, spec, lambda candidate: self._create(role, candidate), role=role, options=self._options
            )
            self.selections[role] = selection
            logger.info("%s", selection)
            spec = BackendSpec.parse(selection.backend)
        created = self._create(role, spec)
        if (warning := accuracy_warning(str(spec), created.accuracy_check)) is not None:
            logger.warning(warning)
        return created

    def _create(self, role: str, spec: BackendSpec) -> Backend:
        return create_backend(self.bundle, spec, role=role, **self._options)


def create_backend(
    bundle: Bundle,
    spec: BackendSpec | str,
    *,
    role: str = "clip",
    allow_failed_accuracy: bool | None = None,
    **options: Any,
) -> Backend:
    """A backend of a bundle as a user names it, not yet open; errors as of `backends.create`.

    Args:
        role: `clip` for the graph of whole clips, `stream` for the pair of a stream's graphs, as a `StreamedClip`.
        allow_failed_accuracy: run what misses its accuracy threshold, where the backend has thresholds.
        options: others of the backend; None for its default.
    """
    spec = BackendSpec.parse(spec) if isinstance(spec, str) else spec
    if "allow_failed_accuracy" in backends.options(spec.backend):
        options["allow_failed_accuracy"] = allow_failed_accuracy
    if role == "stream":
        return create_streamed_clip(bundle, spec, **options)
    return backends.create(spec.backend, bundle, **{**spec.options(), **options})
