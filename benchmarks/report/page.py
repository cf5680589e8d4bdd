"""The report's sections, as one HTML file and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsbg.atomic import atomic_directory
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report import content
from avsbg.benchmarks.report.content import Report, Run, Table
from avsbg.benchmarks.report.labels import network_title, way_title

HTML, MARKDOWN = "report.html", "report.md"


@dataclass(frozen=True)
class Part:
    """A piece of a section: a table, a plot, facts or a command. Markdown shows all but plots."""

    heading: str = ""
    table: Table | None = None
    svg: str = ""
    text: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    code: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page with a link to it."""

    id: str
    title: str
    text: str
    parts: tuple[Part, ...]


def write_report(report: Report, directory: Path, *, replace: bool = False) -> None:
    """Write report.html and report.md; `directory` appears when both are complete.

    Raises:
        BenchmarkError: it exists and may not be replaced, or holds something other than a report.
    """
    if directory.exists() and not replace:
        raise BenchmarkError(f"{directory} exists already.", "Choose another directory, or replace it with --force.")
    if directory.exists() and not (directory / HTML).is_file():
        raise BenchmarkError(f"{directory} holds no report, so it is not replaced.", "Choose another directory.")
    sections = make_sections(report)
    with atomic_directory(directory, replace=replace) as temporary:
        (temporary / HTML).write_text(html(report, sections), encoding="utf-8")
        (temporary / MARKDOWN).write_text(markdown(report, sections), encoding="utf-8")


def make_sections(report: Report) -> list[Section]:
    """The sections that there is something to say in."""
    from avsbg.benchmarks.report import plots

    def each(make: Callable[[Run], Table]) -> list[Part]:
        return [Part(heading=run.title if len(report.runs) > 1 else "", table=make(run)) for run in report.runs]

    profiled = [run for run in report.runs if run.profiles]
    peaks = [run for run in report.runs if run.first.run.peak_gflops]
    sections = [
        Section(
            "table7",
            "Table 7, measured",
            "As published and with each network's own algebra used; same threads, called in turn in one process.",
            tuple(each(content.table7)),
        ),
        Section(
            "latency",
            "Latency",
            "",
            tuple(
                part
                for run in report.runs
                for part in (
                    Part(
                        svg=plots.latency(run),
                        text="Every sample; the bar spans the quartiles. Grey rows are unstable.",
                    ),
                    Part(table=content.distributions(run)),
                )
            ),
        ),
        Section(
            "stages",
            "Where the time goes",
            "",
            tuple(
                part
                for run in profiled
                for part in (
                    Part(
                        svg=plots.stage_bars(run),
                        text="A per-layer profile, folded by the modules that layers are named after.",
                    ),
                    Part(table=content.stages(run)),
                )
            ),
        ),
        Section(
            "bound",
            "Distance to the bound",
            "",
            tuple(
                part
                for run in peaks
                for part in (
                    Part(
                        svg=plots.roofline(run),
                        text="Circles are stable rows. Peaks and bandwidth were measured in the same run.",
                    ),
                    Part(table=content.bound(run)),
                )
            ),
        ),
        Section("memory", "Memory", "", tuple(each(content.memory))),
        Section("accuracy", "Accuracy", "", tuple(_accuracy(report))),
        Section("streaming", "Streaming", "", tuple(_free(report.streaming, "Rows of the streaming benchmark."))),
        Section(
            "estimates",
            "Bounds for devices that were not measured",
            "Arithmetic from published peaks. Nothing in this section was measured.",
            (Part(table=content.estimate_table(report.estimates())),),
        ),
        Section("environment", "Environment", "", tuple(_environment(run) for run in report.runs)),
        Section("unstable", "Unstable rows", "", tuple(_problems(report))),
        Section(
            "repeat",
            "How to repeat",
            "All rows of a run come from one command.",
            tuple(Part(heading=run.source, code=" ".join(run.first.run.command)) for run in report.runs),
        ),
    ]
    return [s for s in sections if any(p.svg or p.facts or p.code or (p.table and p.table.rows) for p in s.parts)]


def _accuracy(report: Report) -> list[Part]:
    """A table of what is known, and accuracy against latency where a row of a network that was timed has a score."""
    from avsbg.benchmarks.report import plots

    points = []
    for scored in report.accuracy:
        label, score = scored.get("label"), scored.get("miou")
        for row in report.rows:
            if row.stable and row.label == label and isinstance(score, (int, float)):
                points.append((row.label, 1e3 * row.latency.per_clip.p50, float(score)))
    plot = [Part(svg=plots.trade(points), text="Rows that are both timed and scored.")] if points else []
    return [*plot, *_free(report.accuracy, "Scores as `avsbg eval` gives them.")]


def _free(rows: Sequence[dict[str, Any]], caption: str) -> list[Part]:
    return [Part(table=content.free_table(rows, caption))] if rows else []


def _problems(report: Report) -> list[Part]:
    facts = tuple((row.label, "; ".join(row.problems)) for row in report.rows if not row.stable)
    return [Part(facts=facts)] if facts else []


def _environment(run: Run) -> Part:
    row = run.first
    machine, measured = row.environment, row.run
    facts = [
        (
            "machine",
            f"{machine.processor}, {machine.cores.physical} cores, {machine.memory / 2**30:.0f} GiB, {machine.system}",
        ),
        ("instruction sets", ", ".join(machine.flags)),
        ("threads", f"{row.backend.get('threads', '?')} for every row; cores {_list(machine.cores.affinity)}"),
        ("others", f"{measured.others:.1%} of all cores used by other processes while sampling"),
        ("clip", f"{row.workload.frames} frames of {row.workload.height} x {row.workload.width}, {row.workload.audio}"),
        (
            "sampling",
            f"{row.latency.per_clip.n} interleaved samples after {measured.warmup} rounds of warm-up, none dropped",
        ),
        ("packages", ", ".join(f"{name} {version}" for name, version in machine.packages.items())),
        ("commit", str(machine.commit)),
        ("started", str(measured.started)),
    ]
    for name, state in (("before", measured.before), ("after", measured.after)):
        if state and state.cpu_mhz:
            facts.append((f"clocks {name}", f"{min(state.cpu_mhz):.0f} to {max(state.cpu_mhz):.0f} MHz"))
        if state and state.gpu:
            facts.append((f"GPU {name}", f"{state.gpu.name}, {state.gpu.clocks_mhz} MHz, {state.gpu.power_mode}"))
    if measured.peak_gflops:
        peaks = ", ".join(f"{name} {peak:.0f} GFLOP/s" for name, peak in measured.peak_gflops.items())
        facts.append(("peak", f"{peaks}; copy {measured.copy_gb_s or 0:.1f} GB/s"))
    return Part(heading=run.title, facts=tuple(facts))


def _list(cores: Sequence[int] | None) -> str:
    return "not recorded" if cores is None else ", ".join(map(str, cores))


def tiles(report: Report) -> list[tuple[str, str]]:
    """What a reader sees first: how much of it is a result, and the most that was gained on one network."""
    found = [(f"{report.stable} / {len(report.rows)}", "rows stable enough to be a result")]
    for run in report.runs:
        first = run.first
        # Another network is no gain.
        same = [row for row in run.rows if row.bundle.name == first.bundle.name and row.label != first.label]
        others = [row for row in same if row.stable]
        if others and first.stable:
            best = min(others, key=lambda row: row.ratio.median)
            ways = f"{network_title(first.variant)}: {way_title(best)}, against {way_title(first)}"
            found.append((f"{1 / best.ratio.median:.2f}x", ways))
    networks = {row.bundle.name: row for row in report.rows}
    found += [
        (f"{row.parameters.published / 1e6:.2f} M", f"parameters, {name}") for name, row in list(networks.items())[:4]
    ]
    return found


def html(report: Report, sections: Sequence[Section]) -> str:
    """One file; styles and plots are inside it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("page.html").render(
        runs=report.runs,
        sections=sections,
        tiles=tiles(report),
        unstable=[row for row in report.rows if not row.stable],
        total=len(report.rows),
    )


def markdown(report: Report, sections: Sequence[Section]) -> str:
    """The same without the plots."""
    lines = ["# Audio-visual segmentation: benchmark report", ""]
    lines += [f"* **{figure}** {what}" for figure, what in tiles(report)]
    for section in sections:
        lines += ["", f"## {section.title}", *(["", section.text] if section.text else [])]
        for part in section.parts:
            lines += ["", f"### {part.heading}"] if part.heading else []
            lines += ["", *_markdown_table(part.table)] if part.table and part.table.rows else []
            lines += ["", *(f"* {name}: {value}" for name, value in part.facts)] if part.facts else []
            lines += ["", f"    {part.code}"] if part.code else []
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    rows = [[cell.text + (f"<br>{cell.detail}" if cell.detail else "") for cell in row] for row in table.rows]
    return [table.caption, "", line(table.headings), "|---" * len(table.headings) + "|", *map(line, rows)]
