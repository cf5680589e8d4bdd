"""`avsbg verify`: backends against a bundle's test vectors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avsbg.cli import app
from avsbg.cli.backends import BACKEND_HELP, create_backend

if TYPE_CHECKING:
    from avsbg.runtime.bundle import Bundle

# An engine that nothing has executed has not passed, and the result must not read as if it had.
NOT_RUN = "an engine needs a GPU, and this version of avsbg executes none"


@app.command()
def verify(  # noqa: PLR0917  (each is an option by name)
    bundle: Annotated[Path, typer.Argument(help="The bundle, a directory that `avsbg export` made.")],
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:FORM]",
            help=f"{BACKEND_HELP}; onnxruntime:FORM with FORM function, native or plain. May be repeated. By default "
            "onnxruntime in each form that the bundle and this installation have.",
        ),
    ] = None,
    clips: Annotated[
        list[int] | None, typer.Option(help="Only the vectors with this number of clips. May be repeated.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="The largest absolute difference of an output that passes.")
    ] = 1e-3,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; by default the backend's choice.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the result here.")
    ] = None,
) -> None:
    """Run each backend on the bundle's test vectors and compare with what PyTorch returned.

    The table shows the largest absolute difference of each output, the same divided by the largest value, and how many
    pixels of the mask flip at 0.5. Exits with 1 if a difference exceeds the tolerance.
    """
    from dataclasses import asdict

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from avsbg.runtime.bundle import Bundle, sha256
    from avsbg.runtime.manifest import MANIFEST
    from avsbg.runtime.verify import compare, select_vectors

    opened = Bundle.open(bundle)
    select_vectors(opened, clips or ())
    results: list[dict[str, Any]] = []
    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False)
    for header in ("backend", "clips", "output", "largest", "relative", "flips", ""):
        table.add_column(header, no_wrap=True, justify="left" if header in ("backend", "output", "") else "right")
    for target in backend or _every_form(opened):
        name, _, form = target.partition(":")
        with (
            Console(stderr=True).status(f"{target}: running"),
            create_backend(name, opened, operator=form or None, threads=threads) as running,
        ):
            comparisons = [
                comparison
                for vectors in select_vectors(opened, clips or ())
                for comparison in compare(running, vectors, tolerance)
            ]
            results.append(
                {
                    "target": target,
                    "backend": running.describe(),
                    "passed": all(comparison.passed for comparison in comparisons),
                    "comparisons": [asdict(comparison) for comparison in comparisons],
                }
            )
        for comparison in comparisons:
            flips = "" if comparison.flips is None else f"{comparison.flips:,}"
            table.add_row(
                target,
                str(comparison.clips),
                comparison.output,
                f"{comparison.largest_absolute:.1e}",
                f"{comparison.largest_relative:.1e}",
                flips,
                "[green]pass[/green]" if comparison.passed else "[bold red]FAIL[/bold red]",
            )
    console = Console(highlight=False)
    console.print(table)
    not_run = dict.fromkeys(opened.manifest.engines, NOT_RUN)
    for name, why in not_run.items():
        console.print(f"[yellow]not run[/yellow]  {name}: {why}")
    passed = all(result["passed"] for result in results)
    if json_file is not None:
        document = {
            "bundle": {"name": opened.manifest.name, "manifest_sha256": sha256(opened.path / MANIFEST)},
            "tolerance": tolerance,
            "passed": passed,
            "results": results,
            "not_run": not_run,
        }
        _write_json(json_file, document)
    if not passed:
        failed = ", ".join(result["target"] for result in results if not result["passed"])
        console.print(f"{failed}: an output differs from PyTorch's by more than {tolerance:g}", style="bold red")
        raise typer.Exit(1)
    ran = f"all outputs of the {len(results)} backends that ran" if not_run else "all outputs"
    console.print(f"{ran} are within {tolerance:g} of PyTorch's")


def _every_form(bundle: Bundle) -> list[str]:
    """ONNX Runtime in each form that the bundle has a graph for, the native one only where its library was built."""
    from avsbg.runtime.errors import NativeLibraryError
    from avsbg.runtime.native_library import native_library

    forms = {graph.operator for graph in bundle.manifest.graphs.values()}
    targets = ["onnxruntime:function"] if "custom" in forms else []
    if "custom" in forms:
        try:
            native_library("onnxruntime")
            targets.append("onnxruntime:native")
        except NativeLibraryError as error:
            print(f"onnxruntime:native is left out: {error}", file=sys.stderr)
    return targets + (["onnxruntime:plain"] if "plain" in forms else [])


def _write_json(path: Path, document: dict[str, Any]) -> None:
    from pydantic_core import to_json

    from avsbg.atomic import atomic_file

    with atomic_file(path) as temporary:
        # A difference can be NaN, which JSON does not have.
        temporary.write_bytes(to_json(document, indent=2, inf_nan_mode="null") + b"\n")
