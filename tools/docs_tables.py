"""The tables of README and docs, made from committed rows: `python -m tools.docs_tables` rewrites them.

A page holds a block between two markers, on lines of their own or within a line:

    <!-- table:table7 -->
    ... never written by hand ...
    <!-- /table:table7 -->

`--check` writes nothing and fails where a block is not what its rows give, or where a page states a measured figure (a
time, a size, a percentage, a ratio) outside of every block. To add a block: markers in the page, a function that
renders it, one line in `BLOCKS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report import collection, gpu, operator, paper, precision, streaming
from avsbg.benchmarks.report.tables import markdown_of, to_markdown
from avsbg.benchmarks.results.schema import Measurement, check_published, read_rows
from avsbg.benchmarks.results.stability import LIMITS
from avsbg.benchmarks.static.counts import merge_key, read_counts
from avsbg.benchmarks.static.roofline import SCHEDULERS, SIDES, Device, Work, load_devices, load_issue_slots
from tools import (
    activation_memory,
    command,
    decoding,
    engines,
    interval_coverage,
    kernels,
    mask_rates,
    native_runtime,
    networks,
    operator_copies,
    phase_batches,
    serving,
    soak,
    speed_tables,
    spinning,
    start_up,
    stream_profile,
    training_tables,
)

RESULTS = Path("benchmarks/results")
COMMAND = "python -m tools.docs_tables"


@dataclass(frozen=True)
class Block:
    """A part of a page that is made from rows."""

    page: str
    name: str  # of its markers; no two blocks of a page share one
    make: Callable[..., str]  # from the rows of each of the files, or the path of one that holds no rows, to Markdown
    files: tuple[str, ...] = ()  # below benchmarks/results; a pattern stands for as many as there are, none included
    committed: bool = True  # refuse rows that no commit can repeat


def _named(table: Callable[..., str], file: str) -> Callable[..., str]:
    """The table of rows that says which file holds them."""
    return partial(table, source=(RESULTS / file).as_posix())


# For people, and the network's operations in one merge each.
MERGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "`head.0` on the enlarged map of `decoder.3`": (("network.decoder.3/Resize", "network.head.0/Conv"),),
    "`head.2` on the map that `head.1` enlarges, and `head.4`": (
        ("network.head.1/Resize", "network.head.2/Conv", "network.head.3/Relu", "network.head.4/Conv"),
    ),
    "`conv2` and `conv3` of the four `fusion` gates": tuple(
        (f"network.fusion.{stage}.conv2/Conv", f"network.fusion.{stage}.conv3/Conv") for stage in range(4)
    ),
}


def merge_table(path: Path) -> str:
    """Operations of a clip before and after an export's merges, by what is merged, from the committed counts."""
    counts = read_counts(path)
    total, lines = counts["networks"]["avs-bg, efficient, operations"], []
    for title, merges in MERGES.items():
        keys = [merge_key("avs-bg-b0", nodes) for nodes in merges]
        # The counts are of a frame, and a clip has five.
        before, after = (5 * sum(counts["graphs"][f"{key}, {state}"] for key in keys) for state in ("before", "merged"))
        lines.append((title, before, after))
    lines.append(("AVS-BG, PVT-v2-b5", total, total - sum(before - after for _, before, after in lines)))
    rows = [
        (title, f"{before / 1e9:.2f}", f"{after / 1e9:.2f}", f"-{(before - after) / total:.1%}")
        for title, before, after in lines
    ]
    return markdown_of(("merged", "GFLOP per clip", "merged", "of the network"), rows)


def limit_table() -> str:
    """The limits of a stable row as docs/benchmark-method.md shows them."""
    limits = {
        "samples": f"fewer than {LIMITS.samples}",
        "coefficient of variation": f"above {LIMITS.variation:.0%}",
        "drift: median of the last quarter against the first": f"beyond {LIMITS.drift:.0%} either way",
        "share of all cores used by other processes while sampling, stolen time included": f"above {LIMITS.others:.0%}",
        "logits off PyTorch, in fp32": f"above {LIMITS.logit_difference:g}, the tolerance of `avsbg verify`",
        "mean IoU with PyTorch's masks, in a reduced precision": f"below {LIMITS.miou:g}",
        "of a ratio: the width of its interval": f"above {LIMITS.interval:.0%} of it: rough",
        "of a ratio: drift, its last quarter against the first": f"beyond {LIMITS.ratio_drift:.0%} either way: rough",
        "of a ratio: its second half against the first": f"beyond {LIMITS.ratio_drift:.0%}, ranges apart: none",
    }
    return markdown_of(("limit", ""), limits.items())


def paper_sentence() -> str:
    """The paper's figures as the documentation cites them."""
    figures = zip(("AVS-BG", "AVSBench"), paper.TABLE_7.values(), strict=True)
    return ", ".join(f"{title} {stated.parameters:.2f} M and {stated.latency:.2f} ms" for title, stated in figures)


def peak_table(path: Path) -> str:
    """The published peaks of devices that were not measured, with their sources."""

    titles = ("device", "tensor cores, dense fp16", "fp32 instructions", "memory", "check")
    rows, sources = [], []
    for device in load_devices(path):
        units, clock, factor = device.multiprocessors, f"{device.clock_ghz} GHz", device.check.over_dense_fp16
        flop = device.fp16_flop_per_clock
        tensor_cores = f"{units} SM x {flop} FLOP/clock x {clock} = {device.tensor_tflops:.1f} TFLOPS"
        lanes = f"{units} x {device.fp32_lanes} x {clock} = {device.lane_tops:.2f} T/s"
        check = f"x {factor} = {device.tensor_tflops * factor:.0f}; published: {device.check.figure}"
        rows.append((device.name, tensor_cores, lanes, f"{device.bandwidth_gb_s:g} GB/s", check))
        sources.append(f"* {device.name}: {device.source}.\n")
    return f"{markdown_of(titles, rows)}\n\nSources:\n\n{''.join(sources)}"


def operator_bounds(device: Device, side: int, slots: int) -> dict[str, float]:
    """Microseconds that each resource needs at its peak rate; the largest but `volume` bounds the operator.

    `slots` are the instructions that a warp issues for a tile of 32 x 32 positions.
    """
    work = Work(side=side)
    return {
        "tensor cores": work.flop / device.tensor_tflops / 1e6,
        "instructions": work.warp_tiles * slots / device.issue_rate / 1e3,
        "memory": work.compulsory_bytes / device.bandwidth_gb_s / 1e3,
        "volume": (work.compulsory_bytes + work.volume_bytes) / device.bandwidth_gb_s / 1e3,
    }


def bound_table(path: Path, kernels_path: Path) -> str:
    """Bounds from below of one call of the operator on each device, in microseconds, and how a cell comes about."""

    slots = load_issue_slots(kernels_path)
    titles = ("device", "side", "tensor cores", "instructions", "memory", "**bound**", "by", "stored volume's traffic")
    devices, rows = load_devices(path), []
    for device in devices:
        for side in SIDES:
            times = list(operator_bounds(device, side, slots[device.architecture]).values())
            shown = [f"{time:.0f}" if time >= 100 else f"{time:.3g}" for time in times]
            longest = times.index(max(times[:3]))
            rows.append((device.name, side, *shown[:3], f"**{shown[longest]}**", titles[2 + longest], shown[3]))
    device, work, first = devices[0], Work(side=SIDES[0]), rows[0]
    return (
        f"{markdown_of(titles, rows)}\n\nHow to read a cell: {device.name}, side {work.side}, tensor cores: "
        f"{work.flop / 1e9:.2f} GFLOP / {device.tensor_tflops:.1f} TFLOPS = {first[2]} us; instructions: "
        f"{work.warp_tiles} tiles of a warp x {slots[device.architecture]} / ({device.multiprocessors} SM x "
        f"{SCHEDULERS} x {device.clock_ghz} GHz) = {first[3]} us; memory: "
        f"{work.compulsory_bytes / 1e6:.2f} MB / {device.bandwidth_gb_s:g} GB/s = {first[4]} us."
    )


def streaming_text(rows: Sequence[Measurement]) -> str:
    """The rows of `avsbg bench stream` as the first part of docs/speed-streams.md."""
    environment = rows[0].environment
    assert environment is not None
    load = max(row.run.others for row in rows if row.run.others is not None)
    parts = [
        f"{environment.processor}, {environment.physical_cores} cores. Other programs used up to {load:.0%} of the "
        "processor meanwhile; nothing is dropped from the samples."
    ]
    pairs = [row for row in rows if row.kind == "stream-pairs"]
    if pairs:
        count = pairs[0].case.get("paired_frames", 1)  # rows from before it was recorded are of one frame
        frames = "a frame" if count == 1 else f"{count} frames"
        parts += [f"Medians of pairs, a clip and {frames} of a stream in turn; ~ marks a time that is not stable:"]
        parts += [to_markdown(streaming.pairs_table(pairs))]
    rated = [row for row in rows if row.kind == "stream-rate"]
    for title in dict.fromkeys(map(streaming.stream_title, rated)):
        own = [row for row in rated if streaming.stream_title(row) == title]
        parts += [f"{title}, exact masks:", to_markdown(streaming.rate_table(own))]
    # A backend changes no mask by as much as a missing neighbour does: one row of each network tells.
    differences = {row.ran.network: row for row in reversed(rows) if row.kind == "stream-difference"}
    soaks = [row for row in rows if row.kind == "stream-soak"]
    parts += map(streaming.describe_stream, [*reversed(differences.values()), *soaks])
    return "\n\n".join(parts)


BLOCKS: tuple[Block, ...] = (
    Block("README.md", "table7", _named(speed_tables.table7, "table7.jsonl"), ("table7.jsonl",)),
    Block("README.md", "systems", networks.short_table, ("networks.jsonl",)),
    Block("docs/benchmark-method.md", "limits", limit_table),
    Block("docs/benchmarks.md", "paper", paper_sentence),
    Block("docs/benchmark-method.md", "coverage", interval_coverage.coverage_table, ("coverage.jsonl",)),
    Block("docs/engine-sizes.md", "engines", engines.engine_table, ("engines.jsonl",)),
    Block(
        "docs/engine-sizes.md", "live", activation_memory.activation_table, ("activation_memory.jsonl", "engines.jsonl")
    ),
    Block("docs/speed.md", "merges", merge_table, ("counts.json",)),
    Block("docs/networks.md", "networks", networks.network_table),
    Block("docs/speed.md", "measured", _named(networks.measured_table, "networks.jsonl"), ("networks.jsonl",)),
    Block("docs/operator-roofline.md", "kernels", kernels.kernel_table, ("kernel_static.json",)),
    Block("docs/operator-roofline.md", "changes", kernels.change_table, ("kernel_before.json", "kernel_static.json")),
    Block("docs/operator-cpu.md", "operator", operator.operator_text, ("operator_cpu.jsonl",), committed=False),
    Block("docs/operator-roofline.md", "peaks", peak_table, ("../static/devices.json",)),
    Block("docs/operator-roofline.md", "bounds", bound_table, ("../static/devices.json", "kernel_static.json")),
    Block("docs/on-gpu.md", "gpu-state", gpu.gpu_state, ("gpu-*.jsonl",)),
    Block("docs/on-gpu.md", "gpu", gpu.gpu_text, ("gpu-*.jsonl",)),
    Block("docs/engine-sizes.md", "copies", operator_copies.copy_table, ("operator_copies.jsonl",)),
    Block("docs/accuracy.md", "precision", precision.precision_table, ("precision.jsonl",)),
    Block("docs/masks-in-time.md", "phase-batches", phase_batches.phase_table, ("phase_batches.jsonl",)),
    Block("docs/speed-streams.md", "front-end", decoding.front_end_table, ("front_end.jsonl",)),
    Block("docs/speed-streams.md", "soak", soak.soak_text, ("soak.jsonl",), committed=False),
    Block("docs/speed-streams.md", "served-streams", serving.serving_table, ("serving.jsonl",)),
    Block("docs/speed-streams.md", "collection", serving.collection_text, ("serving.jsonl",)),
    Block("docs/speed-streams.md", "collection-speed", collection.throughput_table, ("collection_speed.jsonl",)),
    Block("docs/serving.md", "collection-cost", collection.cost_table, ("collection_speed.jsonl",)),
    Block("docs/native-runtime.md", "native-runtime", native_runtime.runtime_table, ("native_runtime.jsonl",)),
    Block("docs/speed-streams.md", "start-up", start_up.start_up_table, ("start_up.jsonl",)),
    Block("docs/speed-streams.md", "stream-profile", stream_profile.profile_table, ("stream_profile.jsonl",)),
    Block("docs/speed.md", "speed", _named(speed_tables.ladder, "speed.jsonl"), ("speed.jsonl",)),
    Block("docs/speed.md", "layers", speed_tables.kind_table, ("layers.jsonl",)),
    Block("docs/speed-streams.md", "streaming", streaming_text, ("streaming.jsonl",)),
    Block("docs/speed-streams.md", "spinning", spinning.spinning_table, ("spinning.jsonl",)),
    Block("model/trained/s4-small/README.md", "small", training_tables.audio_gain_table, ("small.jsonl",)),
    Block("docs/accuracy.md", "small", training_tables.audio_gain_table, ("small.jsonl",)),
    Block("docs/accuracy.md", "ablations", training_tables.ablation_table, ("ablations.jsonl",)),
    Block("docs/accuracy.md", "mask-rates", mask_rates.mask_rate_table, ("mask_rates.jsonl",)),
    Block("docs/accuracy.md", "accuracy", training_tables.accuracy_table, ("accuracy.jsonl",)),
)

# Figures that nobody measured, and why they stand by hand. Page -> the words around them, as they stand -> the reason.
STATED: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("stated.json").read_text(encoding="utf-8"))

_MARKER = re.compile(r"<!-- (?P<close>/?)table:(?P<name>[a-z0-9-]+) -->")
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


def make_block(block: Block, root: Path) -> str:
    """The content of a block; a `BenchmarkError` if rows are missing, or are no result that may be published."""
    paths = []
    for file in block.files:
        paths += sorted((root / RESULTS).glob(file)) if "*" in file else [root / RESULTS / file]
    for path in paths:
        if not path.is_file():
            raise BenchmarkError(f"{block.page} shows a table of {path}, which is not there.", "Commit it.")
    sources = [read_rows(path) if path.suffix == ".jsonl" else path for path in paths]
    for rows in sources:
        if block.committed and isinstance(rows, list):
            check_published(rows)
    return block.make(*sources).rstrip("\n")


def replace_block(text: str, name: str, content: str, where: str) -> str:
    """`text`, which errors call `where`, with what stands between the markers of `name` replaced by `content`."""
    begin, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise BenchmarkError(
            f"{where} needs the markers {begin} and {end}, once each and in this order.", "Add them to the page."
        )
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    space = "\n" if rest.startswith("\n") else ""
    return f"{before}{begin}{space}{content}{space}{end}{after}"


def find_handwritten(text: str, stated: Iterable[str] = ()) -> list[str]:
    """The lines of a page with a measured figure outside of every block and of code, but for what is `stated`."""
    blocks = re.sub(r"<!-- table:([a-z0-9-]+) -->.*?<!-- /table:\1 -->", _only_lines, text, flags=re.DOTALL)
    for words in stated:
        blocks = blocks.replace(words, "")
    prose = _CODE.sub(_only_lines, blocks)
    lines = enumerate(prose.splitlines(), start=1)
    return [f"line {number}: {line.strip()}" for number, line in lines if _FIGURE.search(line)]


def _only_lines(match: re.Match[str]) -> str:
    return "\n" * match.group().count("\n")


def update_page(page: str, root: Path, blocks: Sequence[Block] = BLOCKS) -> tuple[str, str]:
    """Make the blocks of a page: its text as it is, and as its rows make it."""
    path = root / page
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read: {error}.", "Run this at the root of the checkout.") from error
    wanted, own = text, [block for block in blocks if block.page == page]
    for block in own:
        wanted = replace_block(wanted, block.name, make_block(block, root), page)
    if unknown := {match["name"] for match in _MARKER.finditer(_CODE.sub("", text))} - {block.name for block in own}:
        raise BenchmarkError(
            f"{page} has a block table:{min(unknown)} that nothing makes.", f"Add a line to BLOCKS in {__file__}."
        )
    return text, wanted


def pages(root: Path) -> list[str]:
    """The pages that may hold table: the README, docs, and the cards of the networks that are kept."""
    found = [*root.glob("docs/*.md"), *root.glob("model/trained/*/README.md")]
    return ["README.md", *sorted(path.relative_to(root).as_posix() for path in found)]


def update_pages(root: Path, *, check: bool = False, only: Sequence[str] = ()) -> None:
    """Rewrite the tables of pages, all by default, from the committed rows; with `check` write nothing.

    A `BenchmarkError` if a page states a measured figure by hand, or, with `check`, a table is not that of its rows.
    """
    wrong = []
    for page in only or pages(root):
        text, wanted = update_page(page, root)
        if check and text != wanted:
            wrong.append(f"{page} is not what its rows give; run `{COMMAND}` and commit.")
        elif text != wanted:
            with atomic_file(root / page) as temporary:
                temporary.write_text(wanted, encoding="utf-8")
            typer.echo(f"{page}: rewritten")
        for line in find_handwritten(wanted, STATED.get(page, ())):
            wrong.append(f"{page}, {line}\n    is by hand: make it a block, or name it in tools/stated.json.")
    if wrong:
        raise BenchmarkError("\n".join(wrong))
    typer.echo(f"{len(BLOCKS)} blocks are what their rows give")


@command
def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a table is not its rows'.")] = False,
    page: Annotated[list[str] | None, typer.Option(help="Only this page, as docs/engines.md.")] = None,
    show: Annotated[
        tuple[str, Path] | None, typer.Option(metavar="NAME ROWS", help="Only print a table, made from other rows.")
    ] = None,
    root: Annotated[Path, typer.Option(help="The checkout.")] = Path(),
) -> None:
    """Rewrite the tables of README and docs from the committed rows."""
    if show is None:
        update_pages(root, check=check, only=page or ())
        return
    name, rows = show
    found = {block.name: block for block in BLOCKS if [Path(file).suffix for file in block.files] == [".jsonl"]}
    if name not in found:
        raise BenchmarkError(f"there is no table {name!r} of rows.", f"Choose from: {', '.join(sorted(found))}.")
    typer.echo(found[name].make(read_rows(rows)))
