"""The table of precisions' accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avsbg.benchmarks.report.labels import network_title, weights_title
from avsbg.benchmarks.report.tables import Columns, markdown, with_interval
from avsbg.benchmarks.results.schema import Measurement
from avsbg.runtime.bundle.precision import PRECISIONS


def precision_table(rows: Sequence[Measurement]) -> str:
    """The accuracy of each precision: agreement with float32 first, then scores where a data set has annotations."""

    def order(row: Measurement) -> tuple[Any, ...]:
        network = f"{network_title(row.ran.variant)}, {_size(row)}", weights_title(row)
        precision = list(PRECISIONS).index(row.case["precision"]), "rest" in row.case
        return *network, row.case["data"]["kind"] != "vectors", *precision

    def precision_title(row: Measurement) -> str:
        rest = f", the rest {row.case['rest']}" if "rest" in row.case else ""
        return row.case["precision"] + rest + " (emulated)" * row.case["emulated"]

    def threshold(row: Measurement) -> str:
        return f"{row['min_agreement'].number:g}: {'holds' if row.case['passed'] else '**fails**'}"

    def kept_higher(row: Measurement) -> str:
        higher, products = row["higher"].number, row["products"].number
        return f"{higher} of {products}" if higher else "none"

    named: Columns[Measurement] = [
        ("network, weights", lambda row: f"{network_title(row.ran.variant)}, {_size(row)}, {weights_title(row)}"),
        ("clips", lambda row: f"{row.case['clips']}, {row.case['data']['name']}"),
        ("precision", precision_title),
    ]
    agreement: Columns[Measurement] = [
        ("MB", lambda row: f"{row['graph_bytes'].number / 1e6:.1f}"),
        ("logit error", lambda row: f"{row['logit_error'].number:.2g}"),
        ("largest", lambda row: f"{row['largest'].number:.2g}"),
        ("mIoU with fp32", lambda row: f"{row['agreement'].number:.4f}"),
        ("worst clip", lambda row: f"{row['worst_agreement'].number:.4f}"),
        ("flipped", lambda row: f"{row['flipped'].number:.3%}"),
        ("threshold", threshold),
        ("in a higher type", kept_higher),
    ]
    scores: Columns[Measurement] = [
        ("mIoU", lambda row: with_interval(row["miou"], ".4f")),
        ("its change", lambda row: with_interval(row.metrics.get("miou_change"), "+.4f")),
        ("F-score", lambda row: with_interval(row["f_score"], ".4f")),
        ("its change", lambda row: with_interval(row.metrics.get("f_score_change"), "+.4f")),
    ]
    ordered = sorted(rows, key=order)
    parts = [markdown(ordered, [*named, *agreement])]
    if scored := [row for row in ordered if "miou" in row.metrics]:
        parts.append("Against the annotations, the mean over clips (bootstrap interval over the clips):")
        parts.append(markdown(scored, [*named, *scores]))
    return "\n\n".join([*parts, _precision_notes(ordered)])


def _size(row: Measurement) -> str:
    return f"{row.case['height']} x {row.case['width']}"


def _precision_notes(rows: Sequence[Measurement]) -> str:
    versions = {f"onnxruntime {row.environment.packages.get('onnxruntime')}" for row in rows if row.environment}
    sources = {
        f"{row.case['precision']} of {network_title(row.ran.variant)}, {_size(row)} on {record['clips']} clips "
        f"({record['source']})"
        for row in rows
        if (record := row.case.get("calibration")) is not None
    }
    calibrated = f" Calibrated: {'; '.join(sorted(sources))}." if sources else ""
    commits = ", ".join(sorted({row.commit for row in rows}))
    return f"{', '.join(sorted(versions))} on the processor; commit {commits}.{calibrated}"
