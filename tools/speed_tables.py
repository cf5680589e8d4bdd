"""The README's Table 7 and the ladder of docs/speed.md, from the rows of `avsbg bench`."""

from __future__ import annotations

from collections.abc import Sequence

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.labels import network_title, precision, way_title
from avsbg.benchmarks.report.speed import INTERVAL, ROUGH, ROUGH_LEGEND, find_bound, scaled, table7_columns, time_cell
from avsbg.benchmarks.report.tables import Columns, markdown, with_interval
from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.trust import ratio_to

# The project's aims: speed, as published = 1.
AIMS = {"fp32": 1.4, "a reduced precision": 3.0}


def table7(rows: Sequence[Measurement], source: str) -> str:
    """Table 7 in Markdown, ending in a line that says how to repeat it; `source` names the file of the rows.

    A row that is not stable shows no time, and its ratio where its pairs agree; the reasons are listed below the table.
    Raises as `check_run`.
    """
    check_run(rows)
    return "\n".join(
        [markdown(rows, table7_columns(rows[0])), "", *unstable_lines(rows), *machine_lines(rows[0], source, source)]
    )


def check_run(rows: Sequence[Measurement]) -> None:
    """Raise a `BenchmarkError` if the rows are not of one run, its reference first."""
    first = rows[0]
    for row in rows:
        if row.run != first.run or first.label != row.run.settings.get("reference"):
            raise BenchmarkError(
                f"the row {row.label} is not of the run whose reference is the first row, {first.label}.",
                "A table holds the rows of one run, its reference first.",
            )


def machine_lines(first: Measurement, source: str, link: str) -> list[str]:
    """The machine that the run of a row was measured on, and the command that repeats it."""
    machine, clip = first.environment, first.case
    assert machine is not None
    engines = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items() if name in engines)
    text = (
        f"{machine.processor}, {first.ran.backend['threads']} threads, {packages}; {clip['clips']} clip of "
        f"{clip['frames']} frames of {clip['height']} x {clip['width']} a call; {len(first['latency'].samples)} "
        f"interleaved samples a row, none dropped; commit {first.commit}. Raw samples: [`{source}`]({link}), made by"
    )
    return [text, "", f"    {' '.join(first.run.command)}"]


def unstable_lines(rows: Sequence[Measurement]) -> list[str]:
    """The legend of what is marked, and the problems of rows whose times are no result; empty where all is firm."""
    unstable, first = [row for row in rows if not row.is_stable], rows[0]
    judged = {row.label: ratio_to(row, first) for row in rows[1:]}
    legend = [f"{ROUGH_LEGEND}.", ""] if any(ratio.trust == "rough" for ratio in judged.values()) else []
    told = [f"* {label}: {ratio.reasons[0]}." for label, ratio in judged.items() if ratio.trust == "contradictory"]
    legend += [*told, ""] if told else []
    if not unstable:
        return legend
    return [
        *legend,
        f"**The times of {len(unstable)} of {len(rows)} rows are unstable** and are not shown. A ratio comes from "
        "samples taken in turn, so it can stand where the times do not. Parameters, operations and memory do not "
        "depend on them.",
        "",
        *(f"* {network_title(row.ran.variant)}, {way_title(row)}: {'; '.join(row.problems)}." for row in unstable),
        "",
    ]


def ladder(rows: Sequence[Measurement], source: str) -> str:
    """The steps from the published network to the fastest in Markdown, in the order of the run, and the aims reached.

    A row that is not stable shows no time; a gain is shown where its pairs agree. Raises as `check_run`.
    """
    check_run(rows)
    first = rows[0]
    before = dict(zip((row.label for row in rows[1:]), rows, strict=False))

    def mixed_precision(row: Measurement) -> str:
        rest = row.ran.backend.get("rest")
        return precision(row) if rest is None else f"{precision(row)}, the rest {rest}"

    def share_of_bound(row: Measurement) -> str | None:
        if (bound := find_bound(row)) is None:
            return None
        return f"{bound / row['latency'].summary.p50:.0%}" if row.is_stable else "-"

    columns: Columns[Measurement] = [
        (network_title(first.ran.variant), way_title),
        ("precision", mixed_precision),
        ("ms per clip\np50 / p90", time_cell),
        (f"speed, as published = 1\n{INTERVAL}", lambda row: _speedup(first, row)),
        (f"speed, the step before = 1\n{INTERVAL}", lambda row: _speedup(before.get(row.label), row)),
        ("GFLOP", scaled("operations", 1e9, ".1f")),
        ("bound, ms", lambda row: None if (bound := find_bound(row)) is None else f"{1e3 * bound:.0f}"),
        ("share of the bound", share_of_bound),
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
        *unstable_lines(rows),
        *machine_lines(first, source, f"../{source}"),  # the page lies in docs/
    ]
    return "\n".join(lines)


def _speedup(slow: Measurement | None, fast: Measurement) -> str:
    if slow is None or slow is fast:
        return "" if slow is None else "1"
    judged = ratio_to(slow, fast)
    if judged.trust == "contradictory":
        return "pairs disagree"
    return with_interval(judged.interval, ".2f") + f" {ROUGH}" * (judged.trust == "rough")


def _reached(rows: Sequence[Measurement]) -> list[str]:
    """For each aim the fastest row that counts for it and whose pairs with the first agree."""
    first, lines = rows[0], []
    for name, aim in AIMS.items():
        of_aim = [row for row in rows if (precision(row) == "fp32") == (name == "fp32")]
        gains = {row.label: ratio_to(first, row) for row in of_aim}
        told = {label: gain.interval for label, gain in gains.items() if gain.trust != "contradictory"}
        if not told:
            lines.append(f"* {name}: the aim is {aim:g}x; no ratio can be shown.")
            continue
        label, ratio = max(told.items(), key=lambda item: item[1].value)
        assert ratio.low is not None and ratio.high is not None
        outcome = "reached" if ratio.low >= aim else "not reached" if ratio.high < aim else "cannot be told"
        lines.append(f"* {name}: {ratio.value:.2f}x by {label}; the aim of {aim:g}x is {outcome}.")
    return lines


# Of a profile: kinds of layers that take less of the time are not named.
_NAMED = 0.01


def kind_table(rows: Sequence[Measurement]) -> str:
    """The kinds of layers that a network's time goes into, as profilers saw it, in Markdown."""

    def kinds(row: Measurement) -> str:
        shares = {kind: seconds / row["time"].number for kind, seconds in row["kinds"].parts.items()}
        named = [f"{kind} {share:.0%}" for kind, share in shares.items() if share >= _NAMED]
        return ", ".join([*named, f"others {sum(share for share in shares.values() if share < _NAMED):.0%}"])

    columns: Columns[Measurement] = [
        ("network", lambda row: network_title(row.ran.variant)),
        ("run by", way_title),
        ("precision", precision),
        ("time by kind of layer", kinds),
    ]
    machine = rows[0].environment
    assert machine is not None
    return f"{markdown(rows, columns)}\n\n{machine.processor}; commit {rows[0].commit}."
