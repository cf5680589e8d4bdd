"""The page itself, on gradio (https://www.gradio.app): its parts, and the server that shows it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from avsbg.errors import AvsbgError
from avsbg.runtime.errors import WorkerError
from avsbg.runtime.page.guard import Guard
from avsbg.runtime.page.limits import Limits, PageRequest, PageResult, describe_error, run_request
from avsbg.runtime.page.storage import Storage
from avsbg.runtime.processes import Opener

LOOPBACK = "127.0.0.1"
_CSS = """
.gradio-container {max-width: 1180px !important; margin: auto; padding: 12px !important}
.gradio-container {--block-info-text-color: #6b7280}
#video video {max-height: 290px}
#status {min-height: 5em}
footer {display: none !important}
"""
_STEPS = {"segmenting": "Segmenting", "overlay": "Drawing the overlay"}
# The files of requests are in such a folder, which is gone when the page ends.
_PREFIX = "avsbg-page."
# gradio asks the environment where its files are to be: parts of it when they are imported, others for each file.
_FILES = "GRADIO_TEMP_DIR"


@contextmanager
def open_page(
    name: str,
    backends: list[str],
    open_work: Opener[PageRequest, PageResult],
    limits: Limits,
    *,
    host: str = LOOPBACK,
    port: int = 7860,
    shows_attention: bool = True,
    decides_classes: bool = False,
) -> Iterator[str]:
    """Serve the page while the block lasts; yields its address.

    Args:
        name: the bundle's, for the title.
        backends: what can execute it, the first one chosen.
        open_work: opens what works on requests, in a process of its own.
        limits: of each request.
        host, port: the address of the page.
        shows_attention: whether attention maps can be made.
        decides_classes: whether the network tells classes apart, and a threshold does not apply.

    Raises:
        WorkerError: gradio cannot be imported, or the port is in use.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX))).resolve()
        files = root / "files"
        files.mkdir()
        stack.enter_context(_environment(_FILES, str(files)))
        try:
            import gradio
            from starlette.middleware import Middleware
        except ImportError as error:
            hint = "Install it with `pip install 'avsbg[page]'`."
            raise WorkerError(f"gradio cannot be imported: {error}.", hint) from error
        storage = Storage(files, limits)
        stack.enter_context(storage.swept())
        guard = Middleware(Guard, files=files, storage=storage, limits=limits)
        segment = _segment_function(gradio, open_work, limits, root, files)
        blocks = _build(gradio, name, backends, segment, limits,
                        shows_attention=shows_attention, decides_classes=decides_classes)  # fmt: skip
        blocks.queue(max_size=limits.waiting, default_concurrency_limit=limits.workers, api_open=False)
        try:
            _, address, _ = blocks.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False,
                show_error=False, max_file_size=f"{limits.megabytes}mb", footer_links=[], ssr_mode=False,
                enable_monitoring=False, mcp_server=False, pwa=False, css=_CSS, inbrowser=False,
                app_kwargs={"middleware": [guard]},
            )  # fmt: skip
        except OSError as error:
            raise WorkerError(f"the page cannot listen on {host}:{port}: {error}.", "Choose another --port.") from error
        stack.callback(blocks.close, verbose=False)
        yield address


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment while the block lasts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def wait_for_interrupt() -> None:
    """Wait until a signal ends the program."""
    threading.Event().wait()


def _segment_function(
    gradio: Any, open_work: Opener[PageRequest, PageResult], limits: Limits, root: Path, files: Path
) -> Callable[..., tuple[Any, ...]]:
    """The function behind the button: a video and its settings to the values of status, video, files and maps.

    Requests have their folders in `root`; what is shown of them is moved to `files`, which gradio empties.
    """

    def segment(  # noqa: PLR0917  (gradio passes its components by position)
        video: str | None, backend: str, threshold: float, silent: bool, attention: bool,
        progress: Any = gradio.Progress(),  # noqa: B008  (by this default gradio knows that it reports progress)
    ) -> tuple[Any, ...]:  # fmt: skip
        hidden = gradio.update(value=None, visible=False)
        if not video:
            return "**Nothing to do yet.** Choose a video, or record one.", None, None, hidden

        def report(step: str, done: int, total: int | None) -> None:
            progress((done, total or done or 1), desc=_STEPS.get(step, step), unit="s")

        progress(0, desc="Opening the network")
        with suppress(OSError):  # one that is gone is told by the work
            os.utime(video)  # what is worked on is not old
        with tempfile.TemporaryDirectory(dir=root) as folder:
            request = PageRequest(Path(video), Path(folder), backend, threshold, silent, attention)
            try:
                result = run_request(open_work, request, limits, report)
            except AvsbgError as error:
                return f"**Not done:** {describe_error(error, request)}", None, None, hidden
            keep = Path(tempfile.mkdtemp(dir=files))
            overlay, archive, sheet = (
                None if path is None else str(path.rename(keep / path.name))
                for path in (result.overlay, result.archive, result.sheet)
            )
        return _status(result), overlay, archive, gradio.update(value=sheet, visible=sheet is not None)

    return segment


def names_address(value: Any) -> bool:
    """Whether a value that a client sent names an address of a file, which gradio would fetch, of any size."""
    if isinstance(value, dict):
        path = value.get("path")
        return (isinstance(path, str) and "://" in path) or any(map(names_address, value.values()))
    return isinstance(value, list) and any(map(names_address, value))


def _uploads_only(gradio: Any) -> type[Any]:
    """gradio's `Blocks`, which take from clients what was uploaded, and fetch nothing, for whichever input."""

    class UploadBlocks(gradio.Blocks):  # type: ignore[misc]
        async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
            if names_address(inputs):
                raise gradio.Error("This page takes files that are uploaded, and no addresses.")
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)

    return UploadBlocks


def _status(result: PageResult) -> str:
    summary = result.summary
    seconds, spent = summary["seconds"], summary["seconds_spent"]["total"]
    sounding, area, ran = summary["sounding_seconds"], summary["mean_mask_area"], summary["backend"]
    backend = ":".join(str(ran[key]) for key in ("backend", "operator", "precision") if ran.get(key))
    no_sheet = "" if result.no_sheet is None else f" There are no attention maps: {result.no_sheet}"
    return (
        f"**{seconds} masks in {spent:.1f} s: {seconds / spent:.1f} masks per second.** Something sounds in {sounding} "
        f"of {seconds} seconds; on average the mask covers {area:.1%} of the frame. Computed by {backend}.{no_sheet}"
    )


def _build(
    gradio: Any,
    name: str,
    backends: list[str],
    segment: Callable[..., tuple[Any, ...]],
    limits: Limits,
    *,
    shows_attention: bool,
    decides_classes: bool,
) -> Any:
    with _uploads_only(gradio)(
        analytics_enabled=False, title=f"avsbg: {name}", delete_cache=(60, 60 * limits.minutes)
    ) as blocks:
        gradio.Markdown(
            f"# What sounds in a video\n{name}. Up to {limits.seconds} s and {limits.megabytes} MB; files are removed "
            f"{limits.minutes} minutes later."
        )
        with gradio.Row(equal_height=False):
            with gradio.Column(min_width=300):
                video = gradio.Video(
                    label="Video", sources=["upload", "webcam"], include_audio=True, height=340, elem_id="video",
                    webcam_options=gradio.WebcamOptions(mirror=False),
                )  # fmt: skip
                button = gradio.Button("Find what sounds", variant="primary", elem_id="go")
                threshold = gradio.Slider(
                    0.05, 0.95, value=0.5, step=0.05, label="Threshold", visible=not decides_classes,
                    info="A pixel sounds where its probability exceeds this.", elem_id="threshold",
                )  # fmt: skip
                backend = gradio.Dropdown(backends, value=backends[0], label="Backend and precision", elem_id="backend")
                silent = gradio.Checkbox(label="Without sound", info="The network is given silence.", elem_id="silent")
                attention = gradio.Checkbox(
                    label="Attention maps",
                    info="Where the network looks, in the first seconds.",
                    visible=shows_attention,
                    elem_id="attention",
                )
            with gradio.Column(min_width=300):
                overlay = gradio.Video(label="Overlay", interactive=False, height=340, elem_id="overlay", buttons=[])
                status = gradio.Markdown("", elem_id="status")
                files = gradio.File(
                    label="All files: masks, overlay, summary", interactive=False, elem_id="files", height=110
                )
        maps = gradio.Image(
            label="Attention maps",
            show_label=False,
            interactive=False,
            elem_id="maps",
            visible=False,
            buttons=["download", "fullscreen"],
        )
        button.click(
            segment, [video, backend, threshold, silent, attention], [status, overlay, files, maps],
            api_visibility="private", concurrency_limit=limits.workers, show_progress_on=[status],
        )  # fmt: skip
    return blocks
