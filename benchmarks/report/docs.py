"""The figures of README and docs, made from committed rows: `python -m avsbg.benchmarks.report.docs` rewrites them.

A page holds a block between two markers, on lines of their own or within a line:

    <!-- figures:table7 -->
    ... never written by hand ...
    <!-- /figures:table7 -->

`--check` writes nothing and fails where a block is not what its rows give, or where a page states a measured figure (a
time, a size, a percentage, a ratio) outside of every block. To add a block: markers in the page, a function that
renders it, one line in `BLOCKS`.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.errors import AvsbgError

RESULTS = Path("benchmarks/results")
COMMAND = "python -m avsbg.benchmarks.report.docs"


@dataclass(frozen=True)
class Block:
    """A part of a page that is made from rows.

    Attributes:
        page: from the root of the checkout.
        name: of its markers; no two blocks of a page share one. Empty if the page is made as a whole.
        function: `package.module:function`, imported when it is rendered. It takes the paths of `rows` and returns
            Markdown, which stands on lines of its own or within a line, as the markers do.
        rows: what it is made from, below benchmarks/results (or from the root, where it begins with `./`).
    """

    page: str
    name: str
    function: str
    rows: tuple[str, ...]


BLOCKS: tuple[Block, ...] = (
    Block("README.md", "table7", "avsbg.benchmarks.report.table7:render", ("table7.jsonl",)),
    Block("docs/benchmarks.md", "limits", "avsbg.benchmarks.results.stability:table", ()),
    Block("docs/benchmarks.md", "paper", "avsbg.benchmarks.report.paper:sentence", ()),
    Block("docs/engines.md", "engines", "avsbg.benchmarks.static.engines:render", ("engines.jsonl",)),
    Block(
        "docs/engines.md",
        "live",
        "avsbg.benchmarks.static.activation_memory:render",
        ("live_tensors.jsonl", "engines.jsonl"),
    ),
    Block("docs/export.md", "merges", "avsbg.benchmarks.report.merge_table:render", ("counts.json",)),
    Block("docs/operator.md", "kernels", "avsbg.benchmarks.report.kernel_table:render", ("kernel_static.json",)),
    Block("docs/operator-cpu.md", "operator", "avsbg.benchmarks.report.operator_table:render", ("operator_cpu.jsonl",)),
    Block(
        "docs/operator-roofline.md",
        "",
        "avsbg.benchmarks.static.roofline:render",
        ("./benchmarks/static/devices.json",),
    ),
    Block("docs/precision.md", "precision", "avsbg.benchmarks.report.precision_table:render", ("precision.jsonl",)),
    Block("docs/running.md", "front-end", "avsbg.benchmarks.measure.decoding:render", ("front_end.jsonl",)),
    Block("docs/running.md", "soak", "avsbg.benchmarks.measure.soak:render", ("soak.json",)),
    Block("docs/speed.md", "speed", "avsbg.benchmarks.report.speed_table:render", ("speed.jsonl",)),
    Block("docs/streaming.md", "streaming", "avsbg.benchmarks.report.streaming_table:render", ("streaming.jsonl",)),
    Block(
        "model/trained/s4-small/README.md",
        "small",
        "avsbg.benchmarks.report.ablation_table:render_pair",
        ("small.jsonl",),
    ),
    Block("docs/training.md", "small", "avsbg.benchmarks.report.ablation_table:render_pair", ("small.jsonl",)),
    Block("docs/training.md", "ablations", "avsbg.benchmarks.report.ablation_table:render", ("ablations.jsonl",)),
    Block("docs/training.md", "road", "avsbg.benchmarks.measure.backend_accuracy:render", ("accuracy.jsonl",)),
)

# Figures that nobody measured, and why they stand by hand. Page -> the words around them, as they stand -> the reason.
STATED: dict[str, dict[str, str]] = {
    "README.md": {"about 6 GB of disk": "what the packages take, rounded up"},
    "docs/benchmarks.md": {"50 ms pass before each call": "a setting, `sampling.PAUSE`"},
    "docs/export.md": {
        "at most 8 MB per pair": "a limit that the export keeps",
        "come to 2.57 GFLOP": "arithmetic, shown",
    },
    "docs/operator-cpu.md": {
        "at most 6 MiB": "a limit, `kWorkspaceBytes`",
        "(median, 95 % interval)": "the confidence of an interval",
    },
    "docs/operator.md": {"one pair's volume is 39 MB": "arithmetic on its shape"},
    "docs/running.md": {
        "a tenth of the network's time": "an aim",
        "beyond a tenth of a second": "a limit of the soundtrack's repair",
    },
    # An estimate that shows its arithmetic.
    "docs/runtime-tensorrt.md": {
        "4 bytes = 2.1 MB": "arithmetic, shown",
        "written: 12.8 MB": "arithmetic, shown",
        "0.06 ms at the 204.8 GB/s": "arithmetic on the device's published bandwidth",
    },
}

_MARKER = re.compile(r"<!-- (?P<close>/?)figures:(?P<name>[a-z0-9-]+) -->")
_UNITS = r"ms|us|µs|MiB|MB|GiB|GB|GFLOP(?:/s)?|TFLOP(?:/s)?|GMAC|fps|mJ|J|W"
_SHARES = r"half|third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|twentieth|hundredth"
_NUMBERS = r"\d+(?:\.\d+)?|two|three|four|five|six|seven|eight|nine|ten"
# A number with a unit of time, memory, work or energy; a score; a percentage or a ratio, in digits or in words.
_FIGURE = re.compile(
    rf"(?<![\w.])\d+(?:\.\d+)?\s?(?:{_UNITS})\b|\bmIoU\s(?:of\s)?0\.\d+"
    r"|(?<![\w.])\d+(?:\.\d+)?(?:\s?%|\s?percent\b|[x\u00d7](?!\w))"
    rf"|(?<![\w.])(?:{_NUMBERS})\stimes\s(?:as|the|that|those|its|faster|slower|smaller|larger|more|less|quicker)\b"
    rf"|\btwice\sas\b|\b(?:{_NUMBERS}|an?|one)\s(?:{_SHARES})s?\b|\bhalf\s(?:the|of|as|its)\b",
    flags=re.IGNORECASE,
)
_CODE = re.compile(r"^(```|~~~).*?^\1|^    [^\n]*$|`[^`\n]*`", flags=re.DOTALL | re.MULTILINE)


def render(block: Block, root: Path) -> str:
    """What a block holds.

    Raises:
        BenchmarkError: rows are missing, or are no result that may be published.
    """
    paths = [root / row if row.startswith("./") else root / RESULTS / row for row in block.rows]
    for path in paths:
        if not path.is_file():
            raise BenchmarkError(f"{block.page} shows figures from {path}, which is not there.", "Commit it.")
    module, _, function = block.function.partition(":")
    text: str = getattr(importlib.import_module(module), function)(*paths)
    return text.rstrip("\n")


def replace_block(text: str, name: str, content: str, where: str) -> str:
    """`text` with what stands between the markers of `name` replaced by `content`.

    Raises:
        BenchmarkError: the markers are not there exactly once and in order; `where` names the text.
    """
    begin, end = f"<!-- figures:{name} -->", f"<!-- /figures:{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise BenchmarkError(
            f"{where} needs the markers {begin} and {end}, once each and in this order.", "Add them to the page."
        )
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    space = "\n" if rest.startswith("\n") else ""
    return f"{before}{begin}{space}{content}{space}{end}{after}"


def figures_by_hand(text: str, stated: Iterable[str] = ()) -> list[str]:
    """The lines of a page that give a measured figure outside of every block and of code, but for what is `stated`."""
    blocks = re.sub(r"<!-- figures:([a-z0-9-]+) -->.*?<!-- /figures:\1 -->", _only_lines, text, flags=re.DOTALL)
    for words in stated:
        blocks = blocks.replace(words, "")
    prose = _CODE.sub(_only_lines, blocks)
    return [
        f"line {number}: {line.strip()}"
        for number, line in enumerate(prose.splitlines(), start=1)
        if _FIGURE.search(line)
    ]


def _only_lines(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n")


def update_page(page: str, root: Path, blocks: Sequence[Block] = BLOCKS) -> tuple[str, str]:
    """A page as it is and as its rows make it.

    Raises:
        BenchmarkError: see `render` and `replace_block`; or the page has markers that no block is registered for.
    """
    path = root / page
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read: {error}.", "Run this at the root of the checkout.") from error
    wanted = text
    own = [block for block in blocks if block.page == page]
    for block in own:
        content = render(block, root)
        wanted = replace_block(wanted, block.name, content, page) if block.name else f"{content}\n"
    if unknown := {match["name"] for match in _MARKER.finditer(_CODE.sub("", text))} - {block.name for block in own}:
        raise BenchmarkError(
            f"{page} has a block figures:{min(unknown)} that nothing makes.", f"Add a line to BLOCKS in {__file__}."
        )
    return text, wanted


def pages(root: Path) -> list[str]:
    """The pages that may hold figures: the README, docs, and the cards of the networks that are kept."""
    found = [*root.glob("docs/*.md"), *root.glob("model/trained/*/README.md")]
    return ["README.md", *sorted(path.relative_to(root).as_posix() for path in found)]


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where a figure is not its rows'.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option("--page", help="Only this page, as docs/engines.md.")] = None,
    root: Annotated[Path, typer.Option(help="The checkout.")] = Path(),
) -> None:
    """Rewrite the figures of README and docs from the committed rows."""
    wrong = []
    for page in only or pages(root):
        text, wanted = update_page(page, root)
        if check and text != wanted:
            wrong.append(f"{page} is not what its rows give; run `{COMMAND}` and commit.")
        elif text != wanted:
            with atomic_file(root / page) as temporary:
                temporary.write_text(wanted, encoding="utf-8")
            typer.echo(f"{page}: rewritten")
        whole = any(block.page == page and not block.name for block in BLOCKS)
        for line in [] if whole else figures_by_hand(wanted, STATED.get(page, ())):
            wrong.append(f"{page}, {line}\n    is by hand: make it a block, or name it in STATED with the reason.")
    if wrong:
        raise BenchmarkError("\n".join(wrong))
    typer.echo(f"{len(BLOCKS)} blocks are what their rows give")


if __name__ == "__main__":
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
