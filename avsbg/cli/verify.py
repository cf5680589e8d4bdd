"""`avsbg verify`: every graph and engine of a bundle against its test vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Exit, Option

from avsbg.cli import CHECK, app
from avsbg.cli.backends import join_names
from avsbg.cli.options import Backends, BundlePath, Device, Implementation, Precision, Threads, Trust

if TYPE_CHECKING:
    from rich.console import Console

    from avsbg.export.locate import Location
    from avsbg.runtime.bundle import Bundle


@app.command(rich_help_panel=CHECK)
def verify(  # noqa: PLR0917  (each is an option by name)
    bundle: BundlePath,
    backend: Backends = None,
    implementation: Implementation = None,
    precision: Precision = None,
    engine: Annotated[
        list[str] | None, Option(metavar="NAME", help="Name of an engine of the bundle. May be repeated.")
    ] = None,
    batch: Annotated[
        list[int] | None,
        Option(metavar="CLIPS", help="Only the test vectors with this number of clips. May be repeated."),
    ] = None,
    tolerance: Annotated[
        float, Option(metavar="X", min=0.0, help="For fp32: the largest absolute difference that passes.")
    ] = 1e-3,
    locate: Annotated[
        bool, Option("--locate", help="If one fails: find the first tensor that differs, in ONNX Runtime.")
    ] = False,
    trust: Trust = False,
    device: Device = None,
    threads: Threads = None,
    json_file: Annotated[Path | None, Option("--json", metavar="FILE", help="Also write the result as JSON.")] = None,
    picture: Annotated[
        Path | None,
        Option(
            "--picture",
            metavar="FILE",
            help="Also write a PNG with the masks of PyTorch and of each backend, and the pixels that differ.",
        ),
    ] = None,
) -> None:
    """Run each graph and engine on the bundle's test vectors and compare with what PyTorch returned.

    In fp32, each output must be within the tolerance. In a lower precision, the mean IoU between its masks and
    PyTorch's must reach the accuracy threshold in the manifest. Whatever cannot run on this machine is listed as not
    run, never as passed. The exit code is 1 if one fails.
    """
    from pydantic_core import to_json
    from rich.console import Console

    from avsbg.api import verify as verify_bundle
    from avsbg.atomic import atomic_file

    named = backend or (["onnxruntime"] if implementation or precision else [])
    console, clips = Console(highlight=False), batch or ()
    with Console(stderr=True).status("checking the bundle") as status:
        found = verify_bundle(
            bundle, [join_names(name, implementation, precision) for name in named],
            engines=engine or (), clips=clips, tolerance=tolerance, device=device, threads=threads, trust=trust,
            report=lambda name: status.update(f"{name}: running"),
        )  # fmt: skip
    _show(console, found.results, found.not_run)
    failed = [result for result in found.results if not result["passed"]]
    if locate:
        for result in failed:
            if "encode" in result["backend"]:
                console.print(f"{result['target']}: --locate follows one graph, and a stream has two", soft_wrap=True)
            else:
                result["location"] = _locate(console, found.bundle, result, clips)
    if picture is not None:
        from avsbg.runtime.verify.plot import save_masks

        save_masks(found.bundle, found.masks, clips, picture)
        console.print(f"{picture}", soft_wrap=True)
    if json_file is not None:
        with atomic_file(json_file) as temporary:
            # A difference can be NaN, which JSON does not have.
            temporary.write_bytes(to_json(found.to_dict(), indent=2, inf_nan_mode="null") + b"\n")
    _conclude(console, found.results, found.not_run, tolerance)
    if not found.passed:
        raise Exit(1)


def _show(console: Console, results: list[dict[str, Any]], not_run: dict[str, str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    for result in results:
        # Names of engines are long: a line of their own.
        console.print(f"[bold]{escape(result['target'])}[/bold]", soft_wrap=True)
        table = Table(box=None, padding=(0, 2, 0, 0))
        for header in ("clips", "output", "largest", "relative", "flips", "mIoU", ""):
            table.add_column(header, no_wrap=True, justify="left" if header in ("output", "") else "right")
        for comparison in result["comparisons"]:
            clips = [clip["miou"] for clip in result["clips"] if clip["vectors"] == comparison["vectors"]]
            passed = result["passed"] if result["rule"] == "gate" else comparison["passed"]
            largest = (f"{comparison[f'largest_{kind}']:.1e}" for kind in ("absolute", "relative"))
            flips = miou = ""
            if comparison["flips"] is not None:
                flips = f"{comparison['flips'] / comparison['elements']:.3%}"
                miou = f"{sum(clips) / len(clips):.4f}" if clips else ""
            verdict = "[green]pass[/green]" if passed else "[bold red]FAIL[/bold red]"
            table.add_row(str(comparison["clips"]), comparison["output"], *largest, flips, miou, verdict)
        console.print(table)
    for name, why in not_run.items():
        console.print(f"[yellow]not run[/yellow]  {name}: {escape(why)}", soft_wrap=True)


def _locate(console: Console, bundle: Bundle, result: dict[str, Any], clips: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from rich.console import Console

    from avsbg.export.locate import locate, show

    with Console(stderr=True).status(f"{result['target']}: looking for the first tensor that differs") as status:
        location: Location = locate(bundle, result["backend"]["graph"], clips=clips, report=status.update)
    console.print(show(result["target"], location, engine=result["backend"].get("engine")))
    return asdict(location)


def _conclude(console: Console, results: list[dict[str, Any]], not_run: dict[str, str], tolerance: float) -> None:
    if not results:
        console.print("nothing could run here, so nothing passed", style="bold red")
    for result in (result for result in results if not result["passed"]):
        why = f"an output differs from PyTorch's by more than {tolerance:g}"
        if result["rule"] == "gate":
            why = f"the masks' mean IoU with PyTorch's is {result['miou']:.4f}; {result['least_miou']:.4g} is demanded"
        console.print(f"{result['target']}: {why}", style="bold red", soft_wrap=True)
    if results and all(result["passed"] for result in results):
        ran = f"all {len(results)} that ran pass" if not_run else "all pass"
        rule = f"in fp32, every output is within {tolerance:g} of PyTorch's"
        if least := sorted({f"{result['least_miou']:.4g}" for result in results if result["rule"] == "gate"}):
            rule += f"; in lower precisions, the masks' mean IoU reaches what is demanded of each ({', '.join(least)})"
        console.print(f"{ran}: {rule}", soft_wrap=True)
