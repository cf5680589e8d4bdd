"""Tables of what scripts/on-gpu.sh found: stages, the operator on a GPU, rates, counters, networks, engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.report.paper import DEVICE, paper_figures
from avsbg.benchmarks.report.tables import Cell, Columns, Table, make_table, number, to_markdown, with_interval
from avsbg.benchmarks.results.schema import GpuState, Measurement

KINDS = ("gpu-stage", "gpu-operator", "gpu-rate", "gpu-counter", "gpu-failure", "gpu-verify", "gpu-power")
# Unit of a rate -> the one that it is shown in, as a multiple of it.
_RATES = {"FLOP/s": ("TFLOP/s", 1e12), "B/s": ("GB/s", 1e9), "s": ("us", 1e-6)}

_Function = Callable[[Measurement], object]


def gpu_of(row: Measurement) -> GpuState | None:
    """The GPU that the row is of; None where the run had none."""
    return None if row.run.before is None else row.run.before.gpu


def machine_title(row: Measurement) -> str:
    """The GPU with its driver, or that there was none; the processor beside it."""
    gpu, environment = gpu_of(row), row.environment
    assert environment is not None
    name = "no GPU" if gpu is None else f"{gpu.name}, driver {gpu.driver or 'unknown'}"
    return f"{name}; {environment.processor}"


def _problems(row: Measurement) -> str:
    return "; ".join((*row.problems, *row.notes))


def _microseconds(metric: str) -> _Function:
    """A column of the median of a metric; none of an unstable row."""

    def cell(row: Measurement) -> Cell:
        if metric not in row.metrics:
            return number(None)
        return number(f"{1e6 * row[metric].summary.p50:.1f}") if row.is_stable else Cell("-", "number")

    return cell


def _operator_rate(row: Measurement) -> Cell:
    if "latency" not in row.metrics or not row.is_stable:
        return number(None)
    return number(f"{row['operations'].number / row['latency'].summary.p50 / 1e12:.1f}")


def _mebibytes(row: Measurement) -> Cell:
    size = row.value("allocated_memory")
    return number(None if size is None else f"{size / 2**20:.1f}")


def _positions(row: Measurement) -> Cell:
    """The map's size; of each stage where several were computed together."""
    side = row.case["side"]
    return number(" + ".join(f"{one} x {one}" for one in (side if isinstance(side, list) else [side])))


def operator_table(rows: Sequence[Measurement]) -> Table:
    """Time of the mean correlation by each implementation, shape by shape."""
    columns: Columns[Measurement] = [
        ("computed by", lambda row: row.case["implementation"]),
        ("precision", lambda row: row.ran.requested),
        ("pairs", lambda row: number(row.case["pairs"])),
        ("positions", _positions),
        ("us", _microseconds("latency")),
        ("us, cold L2", _microseconds("cold_latency")),
        ("TFLOP/s", _operator_rate),
        ("allocated MiB", _mebibytes),
        ("", _problems),
    ]
    caption = "Medians of one call as a CUDA graph; no time of a row that is unstable or wrong, which says why."
    return make_table([row for row in rows if row.kind == "gpu-operator"], columns, caption)


def _rate(row: Measurement) -> Cell:
    unit, factor = _RATES[row["rate"].unit]
    return number(f"{row['rate'].number / factor:.1f} {unit}") if row.is_stable else Cell("-", "number")


def rate_table(rows: Sequence[Measurement]) -> Table:
    """Peak rates of the GPU, measured by the clock of the operator's times."""
    columns: Columns[Measurement] = [
        ("", lambda row: row.case["name"]),
        ("measured", _rate),
        ("remark", _problems),
    ]
    return make_table([row for row in rows if row.kind == "gpu-rate"], columns, "The best of five.")


def counter_table(rows: Sequence[Measurement]) -> Table:
    """Counts of ncu: a row for each kernel of a problem, a column for each counter."""
    counted = [row for row in rows if row.kind == "gpu-counter"]
    found: dict[tuple[str, str], dict[str, Measurement]] = {}
    for row in counted:
        found.setdefault((str(row.case["problem"]), str(row.case["kernel"])), {})[_counter_title(row)] = row
    titles = list(dict.fromkeys(map(_counter_title, counted)))

    def count(title: str) -> Callable[[tuple[str, str]], Cell]:
        def cell(key: tuple[str, str]) -> Cell:
            row = found[key].get(title)
            if row is None:
                return number(None)
            return number(f"{row['count'].number:g}" if "count" in row.metrics else "-", _problems(row))

        return cell

    columns: Columns[tuple[str, str]] = [
        ("problem", lambda key: key[0]),
        ("kernel", lambda key: key[1]),
        *((title, count(title)) for title in titles),
    ]
    return make_table(found, columns, "A problem: output, type, pairs, positions on either side, channels, options.")


def _counter_title(row: Measurement) -> str:
    unit = row.case["unit"]
    return f"{row.case['metric']}\n{unit}" if unit else str(row.case["metric"])


def stage_table(rows: Sequence[Measurement]) -> Table:
    """Each stage of the script and what became of it."""

    columns: Columns[Measurement] = [
        ("stage", lambda row: row.case["stage"]),
        ("result", lambda row: row.case["result"]),
        ("s", lambda row: number(f"{row['time'].number:g}")),
        ("tests that ran", lambda row: number(row.value("tests"))),
        ("failed", lambda row: number(row.value("failed"))),
        ("", _problems),
    ]
    return make_table([row for row in rows if row.kind == "gpu-stage"], columns)


def verify_table(rows: Sequence[Measurement]) -> Table:
    """Masks of engines against PyTorch's."""
    columns: Columns[Measurement] = [
        ("engine", lambda row: row.case["target"]),
        ("precision", lambda row: row.case["precision"]),
        ("mIoU", lambda row: number(f"{row['miou'].number:.4f}")),
        ("pixels that differ", lambda row: number(f"{row['flipped'].number:.3%}")),
        ("", _problems),
    ]
    return make_table([row for row in rows if row.kind == "gpu-verify"], columns, "Masks against PyTorch's.")


def power_table(rows: Sequence[Measurement]) -> Table:
    """Power of each rail of a Jetson, by power mode."""

    def watts(row: Measurement) -> Cell:
        return number(f"{row['power'].summary.p50:.1f}" if row["power"].samples else None)

    columns: Columns[Measurement] = [
        ("power mode", lambda row: row.case["mode"]),
        ("rail", lambda row: row.case["rail"]),
        ("W", watts),
        ("samples", lambda row: number(len(row["power"].samples))),
        ("", _problems),
    ]
    caption = "Medians while the engines were measured, pauses included. Rails may feed each other: not to be added up."
    return make_table([row for row in rows if row.kind == "gpu-power"], columns, caption)


def network_table(rows: Sequence[Measurement]) -> Table:
    """Networks on the GPU, with the ratio to the reference of their run."""

    def ratio(row: Measurement) -> Cell:
        return number(with_interval(row["ratio"])) if row.is_stable else Cell("-", "number")

    def milliseconds(row: Measurement) -> Cell:
        return number(f"{1e3 * row['latency'].summary.p50:.2f}") if row.is_stable else Cell("-", "number")

    def paper(row: Measurement) -> Cell:
        figures = paper_figures(row.ran.variant)
        return number(f"{figures.latency:.2f}" if figures else None)

    columns: Columns[Measurement] = [
        ("network", lambda row: network_title(row.ran.variant)),
        ("run by", way_title),
        ("precision", precision),
        ("ms per clip", milliseconds),
        ("time, reference: 1", ratio),
        ("allocated MiB", _mebibytes),
        (f"paper, {DEVICE}, ms", paper),
        ("", _problems),
    ]
    return make_table([row for row in rows if row.kind == "latency"], columns)


def failures(rows: Sequence[Measurement]) -> tuple[tuple[str, str], ...]:
    """Cases that could not be measured, with the reason."""
    return tuple((row.label, _problems(row)) for row in rows if row.kind == "gpu-failure")


_TABLES = (stage_table, operator_table, network_table, verify_table, power_table, rate_table, counter_table)


def gpu_state(*files: Sequence[Measurement]) -> str:
    """The machines that scripts/on-gpu.sh ran on, by the committed rows of each; that it ran on none without any.

    A `BenchmarkError` if a file is of a run without a GPU.
    """
    for rows in files:
        if any(row.kind in KINDS and gpu_of(row) is None for row in rows):
            raise BenchmarkError(
                "rows of scripts/on-gpu.sh were made on a machine without a GPU.", "Commit rows of a GPU alone."
            )
    if not files:
        return "**Nothing of this has run on a GPU yet**, except what `--here` does."
    return f"It has run on {', and on '.join(f'{machine_title(rows[0])} (commit {rows[0].commit})' for rows in files)}."


def gpu_text(*files: Sequence[Measurement]) -> str:
    """The rows of each committed run of scripts/on-gpu.sh as tables in Markdown, below the name of its machine."""
    parts = []
    for rows in files:
        parts.append(f"### {machine_title(rows[0])}")
        made = [table(rows) for table in _TABLES]
        parts += [part for table in made if table.rows for part in (table.caption, to_markdown(table)) if part]
        parts += [f"Not measured: {label}: {reason}." for label, reason in failures(rows)]
    return "\n\n".join(parts) or "None is committed."
