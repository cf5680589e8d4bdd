"""Tables of `avsbg bench`: the paper's Table 7, the ladder of docs/speed.md, and those of terminal and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.profile import PARTS, part_title
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.report.paper import DEVICE, paper_figures
from avsbg.benchmarks.report.tables import Cell, Columns, Table, make_table, markdown, number, with_interval
from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.statistics import CONFIDENCE, drift, paired_ratio

UNSTABLE = "unstable"
INTERVAL = f"[{CONFIDENCE:.0%} interval]"
# How many times as fast as published: the aims of the project.
AIMS = {"fp32": 1.4, "a reduced precision": 3.0}

_Function = Callable[[Measurement], object]


# ---- cells -----------------------------------------------------------------------------------------------------------


def network_cell(row: Measurement) -> Cell:
    """The network, and what ran it below."""
    return Cell(network_title(row.ran.variant), detail=f"{way_title(row)}, {precision(row)}")


def time_cell(row: Measurement) -> Cell:
    """Median and 90th percentile in milliseconds; none of an unstable row."""
    if not row.is_stable:
        return Cell(UNSTABLE, "unstable", "not a result")
    summary = row["latency"].summary
    return number(f"{1e3 * summary.p50:.1f} / {1e3 * summary.p90:.1f}", f"{1 / summary.p50:.2f} clips/s")


def ratio_cell(row: Measurement, first: Measurement) -> Cell:
    """The time over that of the first row; none where one of the two is unstable."""
    if not row.is_stable or not first.is_stable:
        return Cell(UNSTABLE, "unstable")
    return number("1" if row is first else with_interval(row["ratio"]))


def scaled(metric: str, factor: float, form: str) -> _Function:
    """A column of a metric's value divided by `factor`; empty where it was not measured."""

    def cell(row: Measurement) -> Cell:
        value = row.value(metric)
        return number(None if value is None else f"{value / factor:{form}}")

    return cell


def _percentile(name: str, form: str, *, always: bool = False) -> _Function:
    """A column of a percentile in milliseconds; of an unstable row only if `always`."""

    def cell(row: Measurement) -> Cell:
        if not row.is_stable and not always:
            return Cell(UNSTABLE, "unstable")
        return number(f"{1e3 * getattr(row['latency'].summary, name):{form}}")

    return cell


def _variation(row: Measurement) -> Cell:
    return number(f"{row['latency'].summary.variation:.1%}")


def _drift(row: Measurement) -> Cell:
    samples = row["latency"].samples
    return number(f"{drift(samples):+.1%}" if len(samples) >= 4 else "-")


def _parameters(row: Measurement) -> Cell:
    published, needed = row["published_parameters"].number, row["needed_parameters"].number
    return number(f"{published / 1e6:.2f} / {needed / 1e6:.2f}")


def _paper(row: Measurement) -> Cell:
    paper = paper_figures(row.ran.variant)
    return number(f"{paper.parameters:.2f} / {paper.latency:.2f}" if paper else None)


def _bound(row: Measurement) -> float | None:
    """Seconds that the row's operations take at the processor's peak in its precision; None if it is not known."""
    peak, operations = row.run.peaks.get(precision(row)), row.value("operations")
    return operations / peak if peak and operations else None


# ---- the paper's Table 7 ---------------------------------------------------------------------------------------------


def table7_columns(first: Measurement) -> Columns[Measurement]:
    """The columns of Table 7: measured figures beside the published ones, ratios to the first row."""
    return [
        ("network", lambda row: network_title(row.ran.variant)),
        ("run by", way_title),
        ("precision", precision),
        ("parameters, M\npublished / needed", _parameters),
        ("GFLOP", scaled("operations", 1e9, ".1f")),
        ("ms per clip\np50 / p90", time_cell),
        (f"time to the first row\n{INTERVAL}", lambda row: ratio_cell(row, first)),
        ("peak MiB", scaled("peak_memory", 2**20, ".0f")),
        (f"paper, {DEVICE}\nM / ms", _paper),
    ]


def table7(rows: Sequence[Measurement], source: str) -> str:
    """Table 7 in Markdown, ending in a line that says how to repeat it.

    A row that is not stable shows what is independent of system load (parameters, operations, memory) and no time; the
    reasons are listed below the table.

    Args:
        rows: of one run.
        source: the file that holds them, as the text names it.

    Raises:
        BenchmarkError: a row is of another run than the first, or the first is not the reference of the others.
    """
    check_run(rows)
    lines = [markdown(rows, table7_columns(rows[0])), "", *_unstable(rows), *_machine(rows, source)]
    return "\n".join(lines)


def check_run(rows: Sequence[Measurement]) -> None:
    """Raise a `BenchmarkError` if the rows are not of one run, its reference first."""
    first = rows[0]
    for row in rows:
        if row.run != first.run or first.label != row.run.settings.get("reference"):
            raise BenchmarkError(
                f"the row {row.label} is not of the run whose reference is the first row, {first.label}.",
                "A table holds the rows of one run, its reference first.",
            )


_ENGINE_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")


def _machine(rows: Sequence[Measurement], source: str) -> list[str]:
    """The machine that the rows of one run were measured on, and the command that repeats it."""
    first = rows[0]
    machine, clip = first.environment, first.case
    assert machine is not None
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items() if name in _ENGINE_PACKAGES)
    return [
        f"{machine.processor}, {first.ran.backend['threads']} threads, {packages}; "
        f"{clip['clips']} clip of {clip['frames']} frames of {clip['height']} x {clip['width']} a call; "
        f"{len(first['latency'].samples)} interleaved samples a row, none dropped; "
        f"commit {first.commit}. Raw samples: [`{source}`]({source}), made by",
        "",
        f"    {' '.join(first.run.command)}",
    ]


def _unstable(rows: Sequence[Measurement]) -> list[str]:
    """The problems of the rows that are no result; nothing where all are stable."""
    unstable = [row for row in rows if not row.is_stable]
    if not unstable:
        return []
    return [
        f"**{len(unstable)} of {len(rows)} rows are unstable**: their times are no result and are not shown. "
        "Parameters, operations and memory do not depend on it.",
        "",
        *(f"* {network_title(row.ran.variant)}, {way_title(row)}: {'; '.join(row.problems)}." for row in unstable),
        "",
    ]


# ---- the ladder of docs/speed.md -------------------------------------------------------------------------------------


def ladder(rows: Sequence[Measurement], source: str) -> str:
    """The steps from the published network to the fastest in Markdown, in the order of the run, and the aims reached.

    A row that is not stable shows no time, and a gain over or to such a row is not shown.

    Args:
        rows: of one run, the reference first.
        source: the file that holds them, as the text names it.

    Raises:
        BenchmarkError: a row is of another run than the first.
    """
    check_run(rows)
    first = rows[0]
    before = dict(zip((row.label for row in rows[1:]), rows, strict=False))
    columns: Columns[Measurement] = [
        (network_title(first.ran.variant), way_title),
        ("precision", _mixed_precision),
        ("ms per clip\np50 / p90", time_cell),
        (f"as published: 1\n{INTERVAL}", lambda row: _speedup(first, row)),
        (f"the step before: 1\n{INTERVAL}", lambda row: _speedup(before.get(row.label), row)),
        ("GFLOP", scaled("operations", 1e9, ".1f")),
        ("bound, ms", lambda row: None if (bound := _bound(row)) is None else f"{1e3 * bound:.0f}"),
        ("share of the bound", _share_of_bound),
        ("masks' mean IoU", lambda row: None if (miou := row.value("miou")) is None else f"{miou:.4f}"),
    ]
    peaks = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in first.run.peaks.items())
    lines = [
        markdown(rows, columns),
        "",
        "Speeds are ratios of medians over pairs: 2 is twice as fast. The bound is the time of the row's products at "
        "the processor's peak in that precision, measured with a large matrix product after the samples: "
        f"{peaks or 'not measured'}. For int8 it is that of a network whose every product is in int8.",
        "",
        *_reached(rows),
        "",
        *_unstable(rows),
        *_machine(rows, source),
    ]
    return "\n".join(lines)


def _mixed_precision(row: Measurement) -> str:
    rest = row.ran.backend.get("rest")
    return precision(row) if rest is None else f"{precision(row)}, the rest {rest}"


def _share_of_bound(row: Measurement) -> str | None:
    bound = _bound(row)
    if bound is None:
        return None
    return f"{bound / row['latency'].summary.p50:.0%}" if row.is_stable else UNSTABLE


def _speedup(slow: Measurement | None, fast: Measurement) -> str:
    if not fast.is_stable or (slow is not None and not slow.is_stable):
        return UNSTABLE
    if slow is None or slow is fast:
        return "" if slow is None else "1"
    return with_interval(paired_ratio(slow["latency"].samples, fast["latency"].samples), ".2f")


def _reached(rows: Sequence[Measurement]) -> list[str]:
    """For each aim the fastest stable row that counts for it."""
    lines = []
    for name, aim in AIMS.items():
        ran = [row for row in rows if row.is_stable and (precision(row) == "fp32") == (name == "fp32")]
        if not ran or not rows[0].is_stable:
            lines.append(f"* {name}: the aim is {aim:g}x; no stable row says.")
            continue
        best = min(ran, key=lambda row: row["ratio"].number)
        ratio = paired_ratio(rows[0]["latency"].samples, best["latency"].samples)
        assert ratio.low is not None and ratio.high is not None
        outcome = "reached" if ratio.low >= aim else "not reached" if ratio.high < aim else "cannot be told"
        lines.append(f"* {name}: {ratio.value:.2f}x by {best.label}; the aim of {aim:g}x is {outcome}.")
    return lines


# ---- terminal --------------------------------------------------------------------------------------------------------


def latency_table(rows: Sequence[Measurement]) -> Table:
    """Milliseconds per clip, and the ratio to the reference; unstable rows are marked."""
    first = rows[0]
    reference = first.run.settings.get("reference")

    def label(row: Measurement) -> Cell:
        problems = f"unstable: {'; '.join(row.problems)}" if row.problems else ""
        name = f"{row.label} *" if row.label == reference else row.label
        return Cell(name, "" if row.is_stable else "unstable", problems)

    columns: Columns[Measurement] = [
        ("case", label),
        *((name, _percentile(name, ".2f", always=True)) for name in ("p50", "p90", "p99")),
        ("CV", _variation),
        ("drift", _drift),
        (f"ratio to * {INTERVAL}", lambda row: number(with_interval(row["ratio"]))),
    ]
    samples = len(first["latency"].samples)
    return make_table(rows, columns, f"Latency per clip, ms ({first.case['scope']}, {samples} samples each)")


def cost_table(rows: Sequence[Measurement]) -> Table:
    """Parameters, operations, memory and accuracy of each case, and the paper's figures of its network."""

    def logits(row: Measurement) -> Cell:
        difference = row.value("logit_difference")
        return number("-" if difference is None else f"{difference:.1e}")

    columns: Columns[Measurement] = [
        ("case", lambda row: row.label),
        ("parameters M\npublished", scaled("published_parameters", 1e6, ".2f")),
        ("needed\nhere", scaled("needed_parameters", 1e6, ".2f")),
        ("GFLOP\na clip", scaled("operations", 1e9, ".1f")),
        ("peak\nMiB", scaled("peak_memory", 2**20, ".0f")),
        ("loaded\nMiB", scaled("loaded_memory", 2**20, ".0f")),
        ("logits off\nPyTorch", logits),
        (f"paper, {DEVICE}\nM / ms", _paper),
    ]
    return make_table(rows, columns, "Network and memory")


# ---- the report's page -----------------------------------------------------------------------------------------------


def distribution_table(rows: Sequence[Measurement]) -> Table:
    """Percentiles of every stable row."""
    columns: Columns[Measurement] = [
        ("row", network_cell),
        *((name, _percentile(name, ".1f")) for name in ("p50", "p90", "p95", "p99")),
        ("CV", _variation),
        ("drift", _drift),
        ("samples", lambda row: number(len(row["latency"].samples))),
    ]
    return make_table(rows, columns, "Milliseconds per clip.")


def memory_table(rows: Sequence[Measurement]) -> Table:
    """Peak memory of each row, in a process of its own."""
    titles = {"peak": "peak_memory", "loaded": "loaded_memory", "peak while loading": "load_peak_memory"}
    columns: Columns[Measurement] = [
        ("row", network_cell),
        *((title, scaled(metric, 2**20, ".0f")) for title, metric in titles.items()),
    ]
    measured = [row for row in rows if "peak_memory" in row.metrics]
    return make_table(measured, columns, "MiB, interpreter and libraries included.")


def bound_table(rows: Sequence[Measurement]) -> Table:
    """The distance of each row from the rate of the processor's own matrix product, measured in the same run."""

    def work(row: Measurement) -> Cell:
        peak = row.run.peaks[precision(row)]
        return number(f"{row['operations'].number / 1e9:.1f} / {peak / 1e9:.0f}", "GFLOP / GFLOP/s")

    def times(row: Measurement) -> Cell:
        if not row.is_stable:
            return Cell(UNSTABLE, "unstable")
        return number(f"{row['latency'].summary.p50 / (_bound(row) or 1):.2f}")

    columns: Columns[Measurement] = [
        ("row", network_cell),
        ("work over peak", work),
        ("bound ms", lambda row: number(f"{1e3 * (_bound(row) or 0):.0f}")),
        ("measured ms", time_cell),
        ("times the bound", times),
    ]
    return make_table(
        [row for row in rows if _bound(row) is not None],
        columns,
        "The bound is the network's operations over the rate of a large matrix product in the same precision, "
        "measured after the samples on the same threads; for int8, that of a network whose every product is in int8.",
    )


def part_table(profiles: Sequence[Measurement], rows: Sequence[Measurement]) -> Table:
    """The share of each part of the network in a profiled run, and the rate that its operations run at."""
    operations = {
        row.label: {part_title(part): count for part, count in row["operations"].parts.items()}
        for row in rows
        if "operations" in row.metrics
    }

    def title(row: Measurement) -> Cell:
        target = row.label.partition(":")[2] or row.label
        return Cell(network_title(row.ran.variant), detail=f"{target}; {row.case['source']}")

    def share(part: str) -> _Function:
        def cell(row: Measurement) -> Cell:
            seconds = row["time"].parts.get(part, 0.0)
            count = operations.get(row.label, {}).get(part)
            rate = f"{count / seconds / 1e9:.0f} GFLOP/s" if seconds and count else ""
            return number(f"{seconds / row['time'].number:.1%}" if seconds else None, rate)

        return cell

    named = [part for part in PARTS if any(part in row["time"].parts for row in profiles)]
    columns: Columns[Measurement] = [("row", title), *((part, share(part)) for part in named)]
    caption = "Share of the profiled time. Profiling slows a run down: proportions, not latency."
    return make_table(profiles, columns, caption)
