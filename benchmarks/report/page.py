"""The report: rows as sections of tables, plots and facts, written as one HTML file and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avsbg.atomic import atomic_directory
from avsbg.benchmarks.report import gpu, plots, speed, streaming
from avsbg.benchmarks.report.classes import class_table
from avsbg.benchmarks.report.content import Report, RunRows
from avsbg.benchmarks.report.directory import check_replaceable
from avsbg.benchmarks.report.estimates import estimate_table
from avsbg.benchmarks.report.labels import network_title, way_title
from avsbg.benchmarks.report.tables import Table, make_table, number, to_markdown
from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.trust import ratio_to

HTML, MARKDOWN = "report.html", "report.md"


@dataclass(frozen=True)
class Part:
    """A piece of a section: a table, a plot in each of its widths, facts or a command. Markdown shows all but plots."""

    heading: str = ""
    table: Table | None = None
    svg: tuple[str, str] | None = None  # for a wide window and for a narrow one
    text: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    code: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.svg or self.facts or self.code or (self.table and self.table.rows))


@dataclass(frozen=True)
class Section:
    """A part of the page with a link to it."""

    id: str
    title: str
    text: str
    parts: Sequence[Part]

    @property
    def is_empty(self) -> bool:
        return all(part.is_empty for part in self.parts)


def write_report(report: Report, directory: Path, *, replace: bool = False) -> None:
    """Write report.html and report.md; `directory` appears when both are complete. Raises as `check_replaceable`."""
    check_replaceable(directory, HTML, "report", force=replace)
    sections = make_sections(report)
    with atomic_directory(directory, replace=replace) as temporary:
        (temporary / HTML).write_text(to_html(report, sections), encoding="utf-8")
        (temporary / MARKDOWN).write_text(to_markdown_page(report, sections), encoding="utf-8")


def make_sections(report: Report) -> list[Section]:
    """The sections that there is something to say in."""
    problems = tuple(
        (row.label, "; ".join(problems))
        for run in report.runs
        for row in run.rows
        if (problems := _doubts(row, run.first))
    )
    problems += tuple(failure for found in report.gpus for failure in gpu.failures(found.rows))
    sections = [
        Section(
            "table7",
            "Table 7, measured",
            "As published and in efficient form; all rows take turns in one process, with the same threads.",
            _per_run(report, _table7),
        ),
        Section("latency", "Latency", "", _per_run(report, _latency)),
        Section("parts", "Where the time goes", "", _per_run(report, _profile)),
        Section("bound", "Distance to the machine's peak rate", "", _per_run(report, _bound)),
        Section("memory", "Memory", "", _per_run(report, _memory)),
        Section("gpu-operator", "The operator on a GPU", "", _per_gpu(report, gpu.operator_table)),
        Section(
            "gpu-rates",
            "Rates of the GPU",
            "Measured by the clock of the operator's times.",
            _per_gpu(report, gpu.rate_table),
        ),
        Section("gpu-counters", "Counters of the kernels", "As ncu reads them.", _per_gpu(report, gpu.counter_table)),
        Section("gpu-verify", "Masks of engines", "", _per_gpu(report, gpu.verify_table)),
        Section("gpu-power", "Power", "", _per_gpu(report, gpu.power_table)),
        Section("gpu-stages", "Stages of scripts/on-gpu.sh", "", _per_gpu(report, gpu.stage_table)),
        Section("accuracy", "Accuracy", "", _accuracy(report)),
        Section(
            "classes",
            "Classes",
            "As `avsbg eval --task avss` scores them: over the frames in which a class is annotated or predicted.",
            [Part(heading=scores["title"], table=class_table(scores)) for scores in report.classes],
        ),
        Section("streaming", "Streaming", "", _streaming(report.streaming)),
        Section(
            "estimates",
            "Bounds for devices that were not measured",
            "Arithmetic from published peaks. Nothing in this section was measured.",
            [Part(table=estimate_table(report.rows))],
        ),
        Section("environment", "Environment", "", _per_run(report, _environment)),
        Section("unstable", "Unstable rows and rough ratios", "", [Part(facts=problems)]),
        Section(
            "repeat",
            "How to repeat",
            "All rows of a run come from one command.",
            _commands(report),
        ),
        Section(
            "unshown",
            "Rows that are not shown",
            "No section knows their kinds.",
            [Part(facts=tuple(report.unshown))],
        ),
    ]
    return [section for section in sections if not section.is_empty]


def _doubts(row: Measurement, first: Measurement) -> tuple[str, ...]:
    """The reasons why a row's times are unstable, and its ratio not firm."""
    reasons = () if row is first else ratio_to(row, first).reasons
    return (*row.problems, *(reason for reason in reasons if reason not in row.problems))


def _per_run(report: Report, make: Callable[[RunRows], list[Part]]) -> list[Part]:
    """The parts of each run, the first of them below the run's title where there are several."""
    parts = []
    for run in report.runs:
        made = [part for part in make(run) if not part.is_empty]
        if made and len(report.runs) > 1:
            made[0] = replace(made[0], heading=run.title)
        parts += made
    return parts


def _per_gpu(report: Report, make: Callable[[Sequence[Measurement]], Table]) -> list[Part]:
    """A table of each machine with a GPU, below its name."""
    made = [(found, make(found.rows)) for found in report.gpus]
    return [Part(heading=found.title, table=table) for found, table in made if table.rows]


def _commands(report: Report) -> list[Part]:
    """The command of each run, once."""
    runs = [(run.source, run.rows) for run in report.runs] + [(found.source, found.rows) for found in report.gpus]
    told = dict.fromkeys((source, " ".join(rows[0].run.command)) for source, rows in runs)
    return [Part(heading=source, code=command) for source, command in told]


def _plot(plot: Callable[..., str], data: Sequence[Any], text: str) -> Part:
    """A plot for a wide window, and for one of a telephone's width."""
    return Part(svg=(plot(data, width=plots.WIDE), plot(data, width=plots.NARROW)), text=text)


def _table7(run: RunRows) -> list[Part]:
    caption = (
        f"Measured beside the paper's figures; times are medians. {speed.ROUGH_LEGEND}, or the time of an unstable row."
    )
    time = (f"ms per clip\n{speed.INTERVAL}", speed.median_cell)
    return [Part(table=make_table(run.rows, speed.table7_columns(run.first, time), caption))]


def _latency(run: RunRows) -> list[Part]:
    text = "Every sample; the bar spans the quartiles. Grey rows are unstable."
    return [
        _plot(plots.latency, run.rows, text),
        Part(table=speed.distribution_table(run.rows)),
    ]


def _profile(run: RunRows) -> list[Part]:
    if not run.profiles:
        return []
    text = "A per-layer profile, folded by the modules that layers are named after."
    return [
        _plot(plots.part_bars, run.profiles, text),
        Part(table=speed.part_table(run.profiles, run.rows)),
    ]


def _bound(run: RunRows) -> list[Part]:
    if not run.first.run.peaks:
        return []
    text = "Hollow circles are unstable rows. Peaks and bandwidth were measured in the same run."
    return [_plot(plots.roofline, run.rows, text), Part(table=speed.bound_table(run.rows))]


def _memory(run: RunRows) -> list[Part]:
    return [Part(table=speed.memory_table(run.rows)), Part(table=speed.allocation_table(run.rows))]


def _accuracy(report: Report) -> list[Part]:
    """A table of the scores, and accuracy against latency where a row that was timed has a score."""
    if not report.accuracy:
        return []
    scores = {row.get("label"): row.get("miou") for row in report.accuracy}
    points = [
        (row.label, 1e3 * row["latency"].summary.p50, float(score))
        for row in report.rows
        if row.is_stable and isinstance(score := scores.get(row.label), (int, float))
    ]
    plot = [_plot(plots.trade, points, "Rows that are both timed and scored.")] if points else []
    named = {name: value for row in report.accuracy for name, value in row.items() if "sha256" not in name}
    names = [name for name, value in named.items() if isinstance(value, (str, int, float))][:10]
    columns = [(name.replace("_", " "), lambda row, name=name: _plain(row.get(name))) for name in names]
    return [*plot, Part(table=make_table(report.accuracy, columns, "Scores as `avsbg eval` gives them."))]


def _plain(value: object) -> object:
    return number(f"{value:.4g}") if isinstance(value, float) else value if isinstance(value, (str, int)) else None


def _streaming(rows: Sequence[Measurement]) -> list[Part]:
    rated = [row for row in rows if row.kind == "stream-rate"]
    others = [row for row in rows if row.kind != "stream-rate"]
    facts = tuple((row.kind.removeprefix("stream-"), streaming.describe_stream(row)) for row in others)
    return [Part(table=streaming.rate_table(rated)), Part(facts=facts)]


def _environment(run: RunRows) -> list[Part]:
    row = run.first
    machine, measured, clip = row.environment, row.run, row.case
    assert machine is not None
    samples, warmup = len(row["latency"].samples), measured.settings.get("warmup")
    after = "" if warmup is None else f" after {warmup} rounds of warm-up"
    cores = machine.physical_cores if machine.physical_cores is not None else f"{machine.logical_cores} logical"
    size = f"{cores} cores, {machine.memory / 2**30:.0f} GiB"
    facts = {
        "machine": f"{machine.processor}, {size}, {machine.system}",
        "instruction sets": ", ".join(machine.flags),
        "threads": f"{row.ran.backend.get('threads', '?')} for every row; cores {', '.join(map(str, machine.cores))}",
        "clip": f"{clip['frames']} frames of {clip['height']} x {clip['width']}, {clip['audio']}",
        "sampling": f"{samples} interleaved samples{after}, none dropped",
        "packages": ", ".join(f"{name} {version}" for name, version in machine.packages.items()),
        "commit": str(machine.commit),
        "started": str(measured.started),
    }
    if measured.others is not None:
        facts["others"] = f"{measured.others:.1%} of all cores used by other processes while sampling"
    for name, state in (("before", measured.before), ("after", measured.after)):
        if state and state.cpu_mhz:
            facts[f"clocks {name}"] = f"{min(state.cpu_mhz):.0f} to {max(state.cpu_mhz):.0f} MHz"
        if state and state.gpu:
            facts[f"GPU {name}"] = f"{state.gpu.name}, {state.gpu.clocks_mhz} MHz, {state.gpu.power_mode}"
    if measured.peaks:
        peaks = ", ".join(f"{name} {peak / 1e9:.0f} GFLOP/s" for name, peak in measured.peaks.items())
        facts["peak"] = f"{peaks}; copy {(measured.copy_rate or 0) / 1e9:.1f} GB/s"
    return [Part(facts=tuple(facts.items()))]


def tiles(report: Report) -> list[tuple[str, str]]:
    """The headline: how many rows are a result, and the most that was gained on one network."""
    timed = report.timed
    found = [(f"{len(timed) - len(report.unstable)} / {len(timed)}", "rows whose times are stable")] if timed else []
    for run in report.runs:
        first = run.first
        # Another network is no gain.
        same = [row for row in run.rows if row.ran.network == first.ran.network and row.label != first.label]
        gains = {row.label: judged for row in same if (judged := ratio_to(row, first)).trust != "contradictory"}
        if gains:
            best = min((row for row in same if row.label in gains), key=lambda row: gains[row.label].interval.value)
            judged = gains[best.label]
            ways = f"{network_title(first.ran.variant)}: {way_title(best)}, against {way_title(first)}"
            mark = f" {speed.ROUGH}" if judged.trust == "rough" else ""
            found.append((f"{1 / judged.interval.value:.2f}x{mark}", ways))
    networks = {row.ran.network: row for row in report.rows if "published_parameters" in row.metrics}
    for name, row in list(networks.items())[:4]:
        found.append((f"{row['published_parameters'].number / 1e6:.2f} M", f"parameters, {name}"))
    return found


def to_html(report: Report, sections: Sequence[Section]) -> str:
    """One file; styles and plots are inside it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template("page.html").render(report=report, sections=sections, tiles=tiles(report))


def to_markdown_page(report: Report, sections: Sequence[Section]) -> str:
    """The same without the plots."""
    lines = ["# Audio-visual segmentation: benchmark report", ""]
    lines += [f"* **{value}** {text}" for value, text in tiles(report)]
    for section in sections:
        lines += ["", f"## {section.title}", *(["", section.text] if section.text else [])]
        for part in section.parts:
            lines += ["", f"### {part.heading}"] if part.heading else []
            if part.table and part.table.rows:
                lines += ["", part.table.caption, "", to_markdown(part.table, details=True)]
            lines += ["", *(f"* {name}: {value}" for name, value in part.facts)] if part.facts else []
            lines += ["", f"    {part.code}"] if part.code else []
    return "\n".join(lines) + "\n"
