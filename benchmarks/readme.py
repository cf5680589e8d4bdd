"""The README's table, made from committed rows: `python -m avsbg.benchmarks.readme` rewrites it, `--check` compares.

The table stands between the two markers; what is between them is never written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.paper import DEVICE, paper_figures
from avsbg.benchmarks.rows import Row, read_rows
from avsbg.errors import AvsbgError

BEGIN, END = "<!-- table7 -->", "<!-- /table7 -->"
RESULTS = Path("benchmarks/results/table7.jsonl")
README = Path("README.md")

_ENGINES = {"torch": "PyTorch eager", "onnxruntime": "ONNX Runtime"}
_WAYS = {
    "published": "as published",
    "efficient": "without the volume",
    "function": "operator as ONNX function",
    "native": "native operator",
    "plain": "standard operators",
}


def render(rows: Sequence[Row], source: str) -> str:
    """Rows as the Markdown that stands between the markers, ending in a line that says how to repeat it.

    Args:
        rows: of one run.
        source: the file that holds them, as the text names it.

    Raises:
        BenchmarkError: a row is unstable, of another run than the first, or of a network that Table 7 does not have.
    """
    first = rows[0]
    lines = [
        f"| network | run by | parameters, M<br>published / needed | GFLOP | ms per clip<br>p50 / p90 | "
        f"time to the first row<br>[{first.ratio.confidence:.0%} interval] | peak MiB | paper, {DEVICE}<br>M / ms |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(row, first) for row in rows),
    ]
    machine = first.environment
    packages = ", ".join(f"{name} {machine.packages[name]}" for name in ("torch", "onnxruntime"))
    clip = first.workload
    lines += [
        "",
        f"{machine.processor}, {first.backend['threads']} threads, fp32, {packages}; "
        f"{clip.clips} clip of {clip.frames} frames of {clip.height} x {clip.width} a call; "
        f"{first.latency.per_clip.n} interleaved samples a row, none dropped; "
        f"commit {str(machine.commit)[:12]}. Raw samples: [`{source}`]({source}), made by",
        "",
        f"    {' '.join(first.run.command)}",
    ]
    return "\n".join(lines)


def _line(row: Row, first: Row) -> str:
    paper = paper_figures(row.variant)
    if row.run != first.run or first.label != row.run.reference:
        raise BenchmarkError(
            f"the row {row.label} is not of the run whose reference is the first row, {first.label}.",
            "A table holds the rows of one run, its reference first.",
        )
    if not row.stable:
        raise BenchmarkError(
            f"the row {row.label} is unstable ({'; '.join(row.problems)}), so it is not published.",
            "Measure again on a quiet machine.",
        )
    if paper is None:
        raise BenchmarkError(f"the row {row.label} is of no network that the paper's Table 7 has.", "Leave it out.")
    summary, ratio = row.latency.per_clip, row.ratio
    backend = str(row.backend["backend"])
    way = _WAYS.get(str(row.backend["operator"]), str(row.backend["operator"]))
    if backend == "onnxruntime" and row.variant["form"] == "published":
        way = f"{way}, as published"
    cells = (
        paper.title,
        f"{_ENGINES.get(backend, backend)}, {way}",
        f"{row.parameters.published / 1e6:.2f} / {row.parameters.inference / 1e6:.2f}",
        f"{row.flops.total / 1e9:.1f}" if row.flops else "",
        f"{1e3 * summary.p50:.1f} / {1e3 * summary.p90:.1f}",
        "1" if row is first else f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        f"{row.memory.peak / 2**20:.0f}" if row.memory else "",
        f"{paper.parameters:.2f} / {paper.latency:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def replace_block(text: str, block: str, where: str) -> str:
    """`text` with what stands between the markers replaced by `block`.

    Raises:
        BenchmarkError: the markers are not there exactly once and in order; `where` names the text.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise BenchmarkError(
            f"{where} needs the lines {BEGIN} and {END}, once each and in this order.", "Add them where the table goes."
        )
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(
    rows: Annotated[Path, typer.Option(help="The rows that the table is made of.")] = RESULTS,
    readme: Annotated[Path, typer.Option(help="The file that holds the markers.")] = README,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if the table is not up to date.")] = False,
) -> None:
    """Rewrite the table between the markers from committed rows."""
    if not readme.is_file():
        raise BenchmarkError(f"there is no {readme} here.", "Run this at the root of the checkout, or give --readme.")
    text = readme.read_text(encoding="utf-8")
    wanted = replace_block(text, render(read_rows(rows), rows.as_posix()), str(readme))
    if check and wanted != text:
        raise BenchmarkError(
            f"the table in {readme} is not what {rows} gives.", "Run `python -m avsbg.benchmarks.readme` and commit."
        )
    if not check:
        with atomic_file(readme) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
    typer.echo(f"{readme}: the table is up to date with {rows}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
