"""The work of the page's requests, in a process of its own: overlay, masks and attention maps of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from avsbg.progress import Progress

if TYPE_CHECKING:
    from avsbg.runtime.page.limits import PageRequest, PageResult


@contextmanager
def open_page_work(bundle: Path, progress: Progress) -> Iterator[Callable[[PageRequest], PageResult]]:
    """Yield what works on requests for a bundle."""

    def work(request: PageRequest) -> PageResult:
        from avsbg.cli.run_sources import open_segmenter
        from avsbg.runtime.page.limits import PageResult, check_video, make_archive
        from avsbg.runtime.segment.pipeline import OVERLAY, Options
        from avsbg.runtime.segment.run import segment_video

        check_video(request.video, request.most_seconds, request.most_megabytes)
        output = request.folder / "run"
        with open_segmenter(bundle, request.backend, stream=None, live=False) as segmenter:
            threshold = Options.threshold if segmenter.bundle.manifest.labels else request.threshold
            options = Options(threshold, request.silent)
            summary = segment_video(segmenter, request.video, output, options, progress=progress)
        sheet = _draw_attention(bundle, request) if request.attention else None
        archive = make_archive(request.folder, output)
        return PageResult(output / OVERLAY, archive, summary, sheet)

    yield work


def _draw_attention(bundle: Path, request: PageRequest) -> Path:
    """The sheet of attention maps of the first clip."""
    from avsbg.export.visualize.video import VisualizeOptions, visualize_video
    from avsbg.runtime.bundle import Bundle

    folder = request.folder / "attention"
    options = VisualizeOptions("clip", None, 1, (), None, None, request.silent, request.threshold, False)
    summary = visualize_video(Bundle.open(bundle), request.video, folder, options)
    return folder / str(summary["clips"][0]["sheet"])
