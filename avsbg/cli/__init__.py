"""The `avsbg` command. Each verb is one short module; heavy imports stay inside the verbs."""

from __future__ import annotations

import sys

import typer

from avsbg.cli.output import tolerate_closed_pipes
from avsbg.errors import AvsbgError

app = typer.Typer(
    name="avsbg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _verbs() -> None:
    """Audio-visual segmentation networks, from a PyTorch checkpoint to an NVIDIA edge device."""


def main() -> None:
    """Entry point: run a verb; a user's mistake becomes one paragraph on stderr and exit code 1."""
    tolerate_closed_pipes()
    try:
        app()
    except AvsbgError as error:
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written was kept", file=sys.stderr)
        sys.exit(130)


# Each import adds a verb to `app`.
from avsbg.cli import (  # noqa: E402
    bench,  # noqa: F401
    bench_stream,  # noqa: F401
    build,  # noqa: F401
    compare,  # noqa: F401
    convert,  # noqa: F401
    data,  # noqa: F401
    doctor,  # noqa: F401
    evaluate,  # noqa: F401
    export,  # noqa: F401
    inspect,  # noqa: F401
    report,  # noqa: F401
    run,  # noqa: F401
    train,  # noqa: F401
    verify,  # noqa: F401
    visualize,  # noqa: F401
)
