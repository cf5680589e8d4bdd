"""The results of scripts/on-gpu.sh as Markdown tables, for a page: speed of the operator, Table 7, rates, counters."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from avsbg.benchmarks.report.paper import DEVICE, TABLE_7

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def median(row: Row, name: str, digits: int) -> str:
    """The median of a summary of samples, or nothing where the row has none."""
    return f"{row[name]['p50']:.{digits}f}" if name in row else ""


def mebibytes(row: Row) -> str:
    """The peak of allocated memory in a call."""
    return f"{row['peak_bytes'] / 2**20:.1f}" if "peak_bytes" in row else ""


def remark(row: Row) -> str:
    """The reason for which a row is no result; empty for a result."""
    if "failed" in row:
        return str(row["failed"])
    if row.get("is_right") is False:
        return "wrong result"
    throttled = [f"throttled: {', '.join(row['throttled'])}"] if row.get("throttled") else []
    unknown = [f"clocks unknown: {row['clocks_unknown']}"] if "clocks_unknown" in row else []
    return "; ".join([*([str(row["graph_failed"])] if "graph_failed" in row else []), *throttled, *unknown])


OPERATOR: Sequence[Column] = (
    ("pairs", lambda row: str(row["n"])),
    ("positions", lambda row: " + ".join(f"{side} x {side}" for side in row["sides"])),
    ("computed by", lambda row: row["way"]),
    ("precision", lambda row: row["precision"]),
    ("us", lambda row: median(row, "warm_us", 1)),
    ("us, cold L2", lambda row: median(row, "cold_us", 1)),
    ("TFLOP/s", lambda row: f"{row['tflops']:.1f}" if "tflops" in row else ""),
    ("MiB", mebibytes),
    ("", remark),
)
TABLE7: Sequence[Column] = (
    ("network", lambda row: row["network"]),
    ("operator", lambda row: row["operator"]),
    ("precision", lambda row: row["precision"]),
    ("eager, ms", lambda row: median(row, "eager_ms", 2)),
    ("CUDA graph, ms", lambda row: median(row, "graph_ms", 2)),
    (f"paper, {DEVICE}, ms", lambda row: f"{TABLE_7[row['network']].latency:.2f}"),
    ("MiB", mebibytes),
    ("", remark),
)
UNITS = {"tflops": "TFLOP/s", "gigabytes_per_second": "GB/s", "us": "us"}
RATES: Sequence[Column] = (
    ("rate", lambda row: row["name"]),
    ("", lambda row: ", ".join(f"{row[key]:.1f} {unit}" for key, unit in UNITS.items() if key in row)),
    ("", remark),
)
COUNTERS: Sequence[Column] = tuple(
    (name, lambda row, name=name: str(row[name])) for name in ("problem", "kernel", "metric", "value", "unit")
)


def table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A Markdown table; nothing without rows."""
    if not rows:
        return ""
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [[cell(row).replace("|", "/") for _, cell in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(results: dict[str, Any]) -> str:
    """The page: the machine and the stages, then a table of each kind of rows."""
    machine = results["machine"] or {}
    gpus = ", ".join(gpu["name"] for gpu in machine.get("gpus", ())) or f"no GPU ({machine.get('no_gpu')})"
    parts = [f"{gpus}, driver {machine.get('driver')}, commit {machine.get('commit')}\n"]
    stages = "".join(f"* {one['stage']}: {one['result']} {one['reason']}".rstrip() + "\n" for one in results["stages"])
    rates = results["rates"] + [row for row in results["operator"] if row["kind"] == "rate"]
    operator = [row for row in results["operator"] if row["kind"] == "operator"]
    parts += [stages, table(OPERATOR, operator), table(TABLE7, results["table7"]), table(RATES, rates)]
    return "\n".join(part for part in [*parts, table(COUNTERS, results["counters"])] if part)


def main() -> None:
    """Write the page beside the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results.json")
    path = parser.parse_args().results
    path.with_suffix(".md").write_text(page(json.loads(path.read_text())))


if __name__ == "__main__":
    main()
