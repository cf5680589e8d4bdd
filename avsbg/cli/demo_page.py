"""`avsbg demo-page`: a web page to try a bundle on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from typer import Option

from avsbg.cli import RUN, app
from avsbg.cli.options import BundlePath

if TYPE_CHECKING:
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.verify.verify import VerifyCase


@app.command("demo-page", rich_help_panel=RUN)
def demo_page(  # noqa: PLR0917  (each is an option by name)
    bundle: BundlePath,
    host: Annotated[
        str, Option(metavar="ADDRESS", help="The address to listen on. By default only this machine can reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=1, max=65535, metavar="N", help="The port.")] = 7860,
    megabytes: Annotated[int, Option(min=1, metavar="N", help="The largest upload, in megabytes.")] = 100,
    seconds: Annotated[int, Option(min=1, metavar="N", help="The longest video, in seconds.")] = 60,
    patience: Annotated[int, Option(min=1, metavar="SECONDS", help="The most time for one video.")] = 600,
    workers: Annotated[int, Option(min=1, metavar="N", help="Videos processed at the same time.")] = 2,
    minutes: Annotated[int, Option(min=1, metavar="N", help="Minutes that files are kept.")] = 10,
    gigabytes: Annotated[int, Option(min=1, metavar="N", help="The most memory for one video, in gigabytes.")] = 8,
) -> None:
    """Open a page in the browser: a video or the camera in; overlay with sound, masks and attention maps out.

    The page has no accounts. Before you open it to other machines, put a reverse proxy in front (docs/serving.md).
    """
    from functools import partial

    from avsbg.api import open_segmenter
    from avsbg.cli.backends import show_messages
    from avsbg.cli.interruption import interruptible
    from avsbg.cli.output import plain_console
    from avsbg.export.visualize.sheet import can_draw, draw_sheet
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.device.gpu import read_cuda_driver
    from avsbg.runtime.page.limits import Limits
    from avsbg.runtime.page.page import LOOPBACK, open_page, wait_for_interrupt
    from avsbg.runtime.page.work import open_page_work
    from avsbg.runtime.verify.verify import list_cases

    opened = Bundle.open(bundle)
    backends = ["auto", *_list_backends(opened, list_cases(opened, read_cuda_driver()))]
    limits = Limits(megabytes, seconds, patience, workers, minutes=minutes, gigabytes=gigabytes)
    path = bundle.resolve()
    draw = partial(draw_sheet, path) if can_draw() else None
    console = plain_console(markup=False)
    show_messages()
    with (
        interruptible(),
        open_page(
            opened.manifest.name,
            backends,
            partial(open_page_work, partial(open_segmenter, path), draw, limits),
            limits,
            host=host,
            port=port,
            shows_attention=draw is not None,
            decides_classes=bool(opened.manifest.labels),
        ) as address,
    ):
        console.print(f"{address} shows the page; Ctrl-C ends it and removes its files")
        if host != LOOPBACK:
            console.print("everyone who reaches this address may use it: put a reverse proxy before it")
        wait_for_interrupt()


def _list_backends(bundle: Bundle, cases: Iterable[VerifyCase]) -> list[str]:
    """List what executes a clip on this machine, each named as `--backend` takes it.

    Engines that share a name, built for other GPUs or numbers of clips, are left out: the page cannot tell them apart.
    """
    from avsbg.runtime.backends.spec import BackendSpec, OperatorImplementation

    def name(case: VerifyCase) -> str:
        if "engine" not in case.options:
            return case.label
        engine = bundle.manifest.engines[case.options["engine"]]
        operator = OperatorImplementation(engine.operator)
        return str(BackendSpec(engine.backend, operator, engine.precision, engine.rest))

    names = [name(case) for case in cases if case.why_not is None and case.encode is None]
    return [one for one in dict.fromkeys(names) if names.count(one) == 1 or not one.startswith("tensorrt")]
