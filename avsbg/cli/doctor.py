"""`avsbg doctor`: a diagnosis of this machine."""

from __future__ import annotations

from collections.abc import Iterable

from avsbg.cli import CHECK, app
from avsbg.cli.options import Format


@app.command(rich_help_panel=CHECK)
def doctor(output_format: Format = "text") -> None:
    """List what this machine can do, and how to install what is missing."""
    import json
    from dataclasses import asdict

    from avsbg.runtime.doctor import diagnose

    diagnosis = diagnose()
    if output_format == "json":
        print(json.dumps(asdict(diagnosis), indent=2))
        return
    found = [finding for finding in diagnosis.findings if finding.found is not None]
    missing = [finding for finding in diagnosis.findings if finding.found is None]
    possible, impossible = ([one for one in diagnosis.abilities if one.possible is works] for works in (True, False))
    _print_section("Found", "green", ((one.name, "; ".join(filter(None, (one.found, one.why)))) for one in found))
    _print_section("Works here", "green", ((one.use.removeprefix("avsbg "),) for one in possible))
    _print_section("Missing, and how to get it", "yellow", ((one.name, one.remedy or one.why or "") for one in missing))
    wanting = ((one.use.removeprefix("avsbg "), (one.why_not or "").removeprefix("needs ")) for one in impossible)
    _print_section("Does not work here, and what is missing", "yellow", wanting)
    if missing:
        print("The reasons: avsbg doctor --format json")


def _print_section(title: str, style: str, rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(no_wrap=True)
    for row in rows:
        table.add_row("", *map(escape, row))
    if table.row_count:
        console = Console(highlight=False)
        console.print(f"[bold {style}]{title}[/]")
        console.print(table)
