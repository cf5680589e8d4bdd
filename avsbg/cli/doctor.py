"""`avsbg doctor`: a diagnosis of this machine."""

from __future__ import annotations

from avsbg.cli import CHECK, app
from avsbg.cli.options import Format


@app.command(rich_help_panel=CHECK)
def doctor(output_format: Format = "text") -> None:
    """Show what this machine has, what each verb can do with it, and how to install what is missing."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from avsbg.runtime.doctor import diagnose

    diagnosis = diagnose()
    if output_format == "json":
        print(json.dumps(asdict(diagnosis), indent=2))
        return
    console = Console(highlight=False)
    machine = Table("", "found", "to install it", box=None, pad_edge=False)
    for finding in diagnosis.findings:
        why = f"[yellow]{escape(finding.why)}[/yellow]" if finding.why else ""
        found = f"missing: {why}" if finding.found is None else " ".join(filter(None, [escape(finding.found), why]))
        machine.add_row(finding.name, found, escape(finding.remedy or ""))
    console.print(machine)
    uses = Table("can be done here", "", "", box=None, pad_edge=False)
    for ability in diagnosis.abilities:
        uses.add_row(
            ability.use,
            "[green]yes[/green]" if ability.possible else "[red]no[/red]",
            escape(". ".join(filter(None, (ability.why_not, "; ".join(ability.remedies))))),
        )
    console.print()
    console.print(uses)
