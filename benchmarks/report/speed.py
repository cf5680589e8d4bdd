"""Tables of `avsbg bench`, in the terminal and on the report's page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from avsbg.benchmarks.measure.profile import PARTS, part_title
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.report.paper import DEVICE, paper_figures
from avsbg.benchmarks.report.tables import Cell, Columns, Table, make_table, number, with_interval
from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.stability import LIMITS
from avsbg.benchmarks.results.statistics import CONFIDENCE, drift, median_interval
from avsbg.benchmarks.results.trust import accuracy_problems, ratio_to

UNSTABLE = "unstable"
ROUGH = "~"
ROUGH_LEGEND = (
    f"{ROUGH} marks a ratio whose interval is wider than {LIMITS.interval:.0%} of it, or that drifts by more than "
    f"{LIMITS.ratio_drift:.0%}"
)
INTERVAL = f"[{CONFIDENCE:.0%} interval]"

_Function = Callable[[Measurement], object]


def network_cell(row: Measurement) -> Cell:
    """The network, and on a second line what ran it."""
    return Cell(network_title(row.ran.variant), detail=f"{way_title(row)}, {precision(row)}")


def time_cell(row: Measurement) -> Cell:
    """Median and 90th percentile in milliseconds; none of an unstable row."""
    if not row.is_stable:
        return Cell("-", "number", "unstable")
    summary = row["latency"].summary
    return number(f"{1e3 * summary.p50:.1f} / {1e3 * summary.p90:.1f}", f"{1 / summary.p50:.2f} clips/s")


def median_cell(row: Measurement) -> Cell:
    """The median in milliseconds with its interval, marked where the row is unstable; none of wrong masks."""
    if accuracy_problems(row):
        return Cell(UNSTABLE, "unstable", "not the network's masks")
    samples = [1e3 * seconds for seconds in row["latency"].samples]
    text = with_interval(median_interval(samples), ".1f")
    return number(text) if row.is_stable else Cell(f"{text} {ROUGH}", "rough")


def ratio_cell(row: Measurement, first: Measurement) -> Cell:
    """The time over that of the first row, marked where it is rough; none where the pairs contradict each other."""
    if row is first:
        return number("1")
    judged = ratio_to(row, first)
    if judged.trust == "contradictory":
        return Cell("wrong masks" if accuracy_problems(row) else "pairs disagree", "unstable")
    text = with_interval(judged.interval)
    return number(text) if judged.trust == "firm" else Cell(f"{text} {ROUGH}", "rough")


def scaled(metric: str, factor: float, form: str) -> _Function:
    """A column of a metric's value divided by `factor`; empty where it was not measured."""

    def cell(row: Measurement) -> Cell:
        value = row.value(metric)
        return number(None if value is None else f"{value / factor:{form}}")

    return cell


def _percentile(name: str, form: str) -> _Function:
    """A column of a percentile in milliseconds, marked where the row is unstable."""

    def cell(row: Measurement) -> Cell:
        text = f"{1e3 * getattr(row['latency'].summary, name):{form}}"
        return number(text) if row.is_stable else Cell(f"{text} {ROUGH}", "rough")

    return cell


def processor_cell(row: Measurement) -> Cell:
    """Seconds of all cores together that a clip took, in milliseconds; empty where they were not measured."""
    if "processor_time" not in row.metrics:
        return number(None)
    return number(f"{1e3 * row['processor_time'].summary.p50:.0f}")


def _variation(row: Measurement) -> Cell:
    return number(f"{row['latency'].summary.variation:.1%}")


def _drift(row: Measurement) -> Cell:
    samples = row["latency"].samples
    return number(f"{drift(samples):+.1%}" if len(samples) >= 4 else "-")


def _parameters(row: Measurement) -> Cell:
    published, needed = row.value("published_parameters"), row.value("needed_parameters")
    if published is None or needed is None:
        return number(None)
    return number(f"{published / 1e6:.2f} / {needed / 1e6:.2f}")


def _paper(row: Measurement) -> Cell:
    paper = paper_figures(row.ran.variant)
    return number(f"{paper.parameters:.2f} / {paper.latency:.2f}" if paper else None)


def find_bound(row: Measurement) -> float | None:
    """Seconds that the row's operations take at the processor's peak in its precision; None if it is not known."""
    peak, operations = row.run.peaks.get(precision(row)), row.value("operations")
    return operations / peak if peak and operations else None


def table7_columns(
    first: Measurement, time: tuple[str, _Function] = ("ms per clip\np50 / p90", time_cell)
) -> Columns[Measurement]:
    """The columns of Table 7: measured figures beside the published ones, ratios to the first row."""
    return [
        ("network", lambda row: network_title(row.ran.variant)),
        ("run by", way_title),
        ("precision", precision),
        ("parameters, M\npublished / needed", _parameters),
        ("GFLOP", scaled("operations", 1e9, ".1f")),
        time,
        (f"time, first row = 1\n{INTERVAL}", lambda row: ratio_cell(row, first)),
        ("peak MiB", scaled("peak_memory", 2**20, ".0f")),
        (f"paper, {DEVICE}\nM / ms", _paper),
    ]


def latency_table(rows: Sequence[Measurement]) -> Table:
    """Milliseconds per clip, and the ratio to the reference; unstable rows are marked."""
    first = rows[0]
    reference = first.run.settings.get("reference")
    reference_row = next((row for row in rows if row.label == reference), first)

    def label(row: Measurement) -> Cell:
        problems = f"unstable: {'; '.join(row.problems)}" if row.problems else ""
        name = f"{row.label} *" if row.label == reference else row.label
        return Cell(name, "" if row.is_stable else "unstable", problems)

    columns: Columns[Measurement] = [
        ("case", label),
        *((name, _percentile(name, ".2f")) for name in ("p50", "p90", "p99")),
        ("CV", _variation),
        ("drift", _drift),
        ("processor", processor_cell),
        (f"ratio to * {INTERVAL}", lambda row: ratio_cell(row, reference_row)),
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


def distribution_table(rows: Sequence[Measurement]) -> Table:
    """Percentiles of every row."""
    columns: Columns[Measurement] = [
        ("row", network_cell),
        *((name, _percentile(name, ".1f")) for name in ("p50", "p90", "p95", "p99")),
        ("CV", _variation),
        ("drift", _drift),
        ("processor", processor_cell),
        ("samples", lambda row: number(len(row["latency"].samples))),
    ]
    caption = f"Milliseconds per clip; {ROUGH} marks unstable rows. Processor: the time of all cores together."
    return make_table(rows, columns, caption)


def memory_table(rows: Sequence[Measurement]) -> Table:
    """Peak memory of each row, in a process of its own."""
    titles = {"peak": "peak_memory", "loaded": "loaded_memory", "peak while loading": "load_peak_memory"}
    columns: Columns[Measurement] = [
        ("row", network_cell),
        *((title, scaled(metric, 2**20, ".0f")) for title, metric in titles.items()),
    ]
    measured = [row for row in rows if "peak_memory" in row.metrics]
    return make_table(measured, columns, "MiB, interpreter and libraries included.")


def allocation_table(rows: Sequence[Measurement]) -> Table:
    """Memory that a call allocates on the GPU, where that was measured."""
    columns: Columns[Measurement] = [("row", network_cell), ("allocated", scaled("allocated_memory", 2**20, ".0f"))]
    measured = [row for row in rows if "allocated_memory" in row.metrics]
    return make_table(measured, columns, "MiB that PyTorch allocates on the GPU in a call, at the most.")


def bound_table(rows: Sequence[Measurement]) -> Table:
    """The distance of each row from the rate of the processor's own matrix product, measured in the same run."""

    def work(row: Measurement) -> Cell:
        peak = row.run.peaks[precision(row)]
        return number(f"{row['operations'].number / 1e9:.1f} / {peak / 1e9:.0f}", "GFLOP / GFLOP/s")

    def times(row: Measurement) -> Cell:
        text = f"{row['latency'].summary.p50 / (find_bound(row) or 1):.2f}"
        return number(text) if row.is_stable else Cell(f"{text} {ROUGH}", "rough")

    columns: Columns[Measurement] = [
        ("row", network_cell),
        ("work over peak", work),
        ("bound ms", lambda row: number(f"{1e3 * (find_bound(row) or 0):.0f}")),
        ("measured ms", median_cell),
        ("times the bound", times),
    ]
    return make_table(
        [row for row in rows if find_bound(row) is not None],
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
