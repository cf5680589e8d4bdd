"""The networks as docs/networks.md, docs/speed.md and the README show them: from their records, and measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from avsbg.benchmarks.report.labels import encoder_title
from avsbg.benchmarks.report.speed import ratio_cell, time_cell
from avsbg.benchmarks.report.tables import Cell, markdown
from avsbg.benchmarks.results.schema import Measurement
from avsbg.model import NETWORKS, NetworkRecord
from tools.speed_tables import check_run, machine_lines, unstable_lines


def network_table() -> str:
    """The networks, what they take, whether they stream, and their published scores."""
    columns: list[tuple[str, Callable[[NetworkRecord], str]]] = [
        ("network", lambda record: record.title + (f", `{record.name}`" if record.module else ", never released")),
        ("task", lambda record: record.task),
        ("encoder", lambda record: ", ".join(encoder_title(name) for name in record.published_encoders) or "-"),
        ("sound", _sound),
        ("streams", _streams),
        ("S4: mIoU / F-score", lambda record: _scores(record, "s4")),
        ("MS3: mIoU / F-score", lambda record: _scores(record, "ms3")),
    ]
    return markdown(NETWORKS.values(), columns)


def _streams(record: NetworkRecord) -> str:
    return "-" if record.module is None else "no" if record.mixes_frames else "yes"


def _sound(record: NetworkRecord) -> str:
    if record.module is None:
        return "-"
    return "spectrogram" if record.spectrogram else "embeddings" if record.takes_embeddings else "none"


def _scores(record: NetworkRecord, task: str) -> str:
    found = (score for (_, of), score in record.scores.items() if of == task)
    return ", ".join(f"{score.miou:.2f} / {score.f_score:.3f}" for score in found)


@dataclass(frozen=True)
class _Line:
    """A network with an encoder, its row and those of its engines; neither where it was never released."""

    record: NetworkRecord
    encoder: str
    row: Measurement | None
    engines: tuple[Measurement, ...]


def _lines(rows: Sequence[Measurement]) -> tuple[list[_Line], list[Measurement]]:
    """A line for each network and encoder in the registry's order, and the rows of the run, if there is one.

    Raises as `check_run`.
    """
    timed = [row for row in rows if row.kind == "latency"]
    if timed:
        check_run(timed)

    def of(found: Sequence[Measurement], network: str, encoder: str) -> tuple[Measurement, ...]:
        wanted = (network, encoder)
        return tuple(row for row in found if (row.ran.variant["network"], row.ran.variant["encoder"]) == wanted)

    engines, lines = [row for row in rows if row.kind != "latency"], []
    for record in NETWORKS.values():
        for encoder in record.published_encoders or ("",):
            row = next(iter(of(timed, record.name, encoder)), None)
            if row is not None or record.module is None or not timed:
                lines.append(_Line(record, encoder, row, of(engines, record.name, encoder)))
    return lines, timed


def _system(line: _Line) -> str:
    encoder = f", {encoder_title(line.encoder)}" if len(line.record.published_encoders) > 1 else ""
    return f"{line.record.title}{encoder}" if line.record.module else f"{line.record.title}, never released"


def _measured(cell: Callable[[Measurement], object]) -> Callable[[_Line], object]:
    return lambda line: "-" if line.row is None else cell(line.row)


def _millions(row: Measurement) -> str:
    return " / ".join(f"{row[f'{kind}_parameters'].number / 1e6:.2f}" for kind in ("published", "needed"))


def _operations(row: Measurement) -> str:
    published, needed = row.value("published_operations"), row["operations"].number
    return f"{needed / 1e9:.1f}" if published is None else f"{published / 1e9:.1f} / {needed / 1e9:.1f}"


def _published_scores(line: _Line, *tasks: str) -> str:
    found = [line.record.find_scores(line.encoder, task) for task in tasks]
    return ", ".join(f"{score.miou:.2f} / {score.f_score:.3f}" for score in found if score is not None)


def _memory(row: Measurement) -> str:
    return "" if (peak := row.value("peak_memory")) is None else f"{peak / 2**20:.0f}"


def measured_table(rows: Sequence[Measurement], source: str) -> str:
    """Every network measured beside AVS-BG: the long table of docs/speed.md. Raises as `check_run`."""
    lines, timed = _lines(rows)

    def engine(metric: str, factor: float = 1.0) -> Callable[[_Line], str]:
        def cell(line: _Line) -> str:
            if line.record.module is None:
                return "-"
            cells = []
            for row in line.engines:
                value = row.value(metric)
                shown = "fails" if row.kind == "engine-failure" else "?" if value is None else f"{value / factor:.0f}"
                cells.append(f"{shown} ({row.case['precision']})")
            return ", ".join(cells)

        return cell

    columns: list[tuple[str, Callable[[_Line], object]]] = [
        ("system", _system),
        ("task", lambda line: line.record.task),
        ("parameters, M\npublished / needed", _measured(_millions)),
        ("GFLOP\npublished / efficient", _measured(_operations)),
        ("time, AVS-BG PVT-v2-b5 = 1\n[95% interval]", _measured(lambda row: ratio_cell(row, timed[0]))),
        ("ms per clip\np50 / p90", _measured(time_cell)),
        ("peak MiB", _measured(_memory)),
        ("streams", lambda line: _streams(line.record)),
        ("RTX engine: layers", engine("layers")),
        ("activation MB", engine("activation_memory", 1e6)),
        ("S4\nmIoU / F", lambda line: _published_scores(line, "s4")),
        ("MS3\nmIoU / F", lambda line: _published_scores(line, "ms3")),
    ]
    failed = [row for row in rows if row.kind == "engine-failure"]
    reasons = [f"* {row.ran.network} in {row.case['precision']}: {'; '.join(row.problems)}" for row in failed]
    return "\n".join(
        [
            markdown(lines, columns),
            "",
            *(["Engines that TensorRT for RTX does not build:", "", *reasons, ""] if reasons else []),
            *(
                [*unstable_lines(timed), *machine_lines(timed[0], source, f"../{source}")]
                if timed
                else ["Times, operations and memory are not measured yet."]
            ),
        ]
    )


def short_table(rows: Sequence[Measurement]) -> str:
    """The README's: what a network needs, its time over AVS-BG's, and its score on S4. Raises as `check_run`."""
    lines, timed = _lines(rows)

    def time(row: Measurement) -> Cell:
        return ratio_cell(row, timed[0])

    columns: list[tuple[str, Callable[[_Line], object]]] = [
        ("system", _system),
        ("task", lambda line: line.record.task),
        ("parameters, M", _measured(lambda row: f"{row['needed_parameters'].number / 1e6:.1f}")),
        ("GFLOP", _measured(lambda row: f"{row['operations'].number / 1e9:.0f}")),
        ("time, AVS-BG PVT-v2-b5 = 1\n[95% interval]", _measured(time)),
        ("peak MiB", _measured(_memory)),
        ("streams", lambda line: _streams(line.record)),
        ("S4: mIoU / F-score", lambda line: _published_scores(line, "s4")),
    ]
    return markdown(lines, columns)
