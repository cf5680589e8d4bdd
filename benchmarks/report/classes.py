"""Scores of classes on the report's page, from what `avsbg eval --task avss --json` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.tables import Columns, Table, make_table, number

_HINT = "Make it with `avsbg eval BUNDLE --data AVSS --task avss --json FILE`."


def read_class_scores(path: Path) -> dict[str, Any]:
    """Read a file of scores; a `BenchmarkError` if it cannot be read, or has none of classes."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            (str(row["name"]), float(row["iou"]), float(row["f_score"]), int(row["frames"])) for row in found["classes"]
        ]
        means = {name: (float(found[name]["miou"]), float(found[name]["f_score"])) for name in ("published", "present")}
        model, data = found["model"], found["data"]
        title = str(model.get("bundle") or model.get("weights"))
        where = f"{data['clips']} clips of AVSS, {data['split']}, {data['height']} x {data['width']}"
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BenchmarkError(f"{path} cannot be read as scores of classes: {error!r}.", _HINT) from error
    return {"title": title, "where": where, "rows": rows, "means": means}


def class_table(scores: dict[str, Any]) -> Table:
    """IoU and F-score of each class, with the number of frames that it occurs in."""
    columns: Columns[tuple[str, float, float, int]] = [
        ("class", lambda row: row[0]),
        ("IoU", lambda row: number(f"{row[1]:.4f}" if row[3] else "-")),
        ("F-score", lambda row: number(f"{row[2]:.4f}" if row[3] else "-")),
        ("frames", lambda row: number(row[3])),
    ]
    (miou, f_score), (present_miou, present_f) = scores["means"]["published"], scores["means"]["present"]
    caption = (
        f"{scores['where']}. Means over all classes: mIoU {miou:.4f} and F-score {f_score:.4f} as the released script "
        "counts, which takes frames that clips of five seconds lack for background; "
        f"{present_miou:.4f} and {present_f:.4f} of the frames that are there."
    )
    return make_table(scores["rows"], columns, caption)
