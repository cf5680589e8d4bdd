"""Work on requests, in a process of its own: overlay, masks and attention maps of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from avsbg.errors import AvsbgError
from avsbg.progress import Progress
from avsbg.runtime.errors import MediaError
from avsbg.runtime.page.limits import Limits, PageRequest, PageResult, check_video, describe_error, make_archive
from avsbg.runtime.segment.pipeline import OVERLAY, Options
from avsbg.runtime.segment.run import segment_video
from avsbg.runtime.segment.segmenter import Segmenter

OpenNetwork = Callable[[str], AbstractContextManager[Segmenter]]  # by the backend's name


class DrawSheet(Protocol):
    """A function that draws attention maps of a video on one sheet, in a folder that it makes."""

    def __call__(self, video: Path, folder: Path, *, silent: bool, threshold: float) -> Path: ...


@contextmanager
def open_page_work(
    open_network: OpenNetwork, draw_sheet: DrawSheet | None, limits: Limits, progress: Progress
) -> Iterator[Callable[[PageRequest], PageResult]]:
    """Yield what works on requests; its errors are those of `check_video`, `segment_video` and `open_network`.

    Args:
        open_network: opens the network on a backend.
        draw_sheet: draws attention maps; None where that is not possible.
        limits: of each request.
        progress: called as work goes on.
    """

    def work(request: PageRequest) -> PageResult:
        video = check_video(request.video, limits)
        output = request.folder / "run"
        with open_network(request.backend) as segmenter:
            manifest = segmenter.bundle.manifest
            if manifest.uses_audio and not video.has_audio and not request.silent:
                raise MediaError("the video has no sound, and the network uses it.", "Choose “Without sound”.")
            options = Options(Options.threshold if manifest.labels else request.threshold, request.silent)
            summary = segment_video(segmenter, request.video, output, options, progress=progress)
        result = PageResult(output / OVERLAY, make_archive(request.folder, output), summary)
        if draw_sheet is None or not request.attention:
            return result
        try:
            folder = request.folder / "attention"
            sheet = draw_sheet(request.video, folder, silent=request.silent, threshold=request.threshold)
        except AvsbgError as error:  # its masks are shown all the same
            return replace(result, no_sheet=describe_error(error, request, "the page"))
        return replace(result, sheet=sheet)

    yield work
