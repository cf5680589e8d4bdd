"""The results of scripts/on-gpu.sh in one JSON file: the machine, what became of each stage, rows, counters, tests.

Of a Jetson also what `avsbg verify` and `avsbg bench run` found of its engines, and the power in each power mode.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file in JSON Lines; none where it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def counters(path: Path) -> list[dict[str, Any]]:
    """Rows of ncu's counts, one for each problem, kernel and metric. Each problem's lines begin with a header."""
    found: list[dict[str, Any]] = []
    header: list[str] = []
    for line in csv.reader(path.read_text().splitlines()) if path.is_file() else ():
        if line[1:2] == ["ID"]:
            header = line[1:]
            continue
        fields = dict(zip(header, line[1:], strict=False))
        names = {"kernel": "Kernel Name", "metric": "Metric Name", "unit": "Metric Unit", "value": "Metric Value"}
        found.append({"problem": line[0], **{name: fields.get(title) for name, title in names.items()}})
    return found


def power(path: Path) -> dict[str, Any]:
    """Milliwatts of each power rail and MHz of the GPU, in the order in which tegrastats wrote its lines.

    NVIDIA's Jetson Linux Developer Guide describes them ("tegrastats Utility"): `VDD_GPU_SOC 2400mW/2388mW` is a rail's
    power now and on average, `GR3D_FREQ 99%@[1300,1300]` the GPU's load and its clocks, `@1300` where it has one.
    """
    rails: dict[str, list[int]] = {}
    clocks = []
    for line in path.read_text().splitlines():
        for name, now in re.findall(r"(\w+) (\d+)mW/\d+mW", line):
            rails.setdefault(name, []).append(int(now))
        clocks += [int(clock) for clock in re.findall(r"GR3D_FREQ \d+%@\[?(\d+)", line)]
    return {"milliwatts": rails, "gpu_mhz": clocks}


def tests(path: Path) -> dict[str, int]:
    """Counts of a report in JUnit's form: tests, failed and skipped ones."""
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    counted = ("tests", "failures", "errors", "skipped")
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in counted}


def mode(path: Path) -> str:
    """The power mode in the name of a file or folder; `set` is the one that was set."""
    return path.stem.partition("-")[2]


def collect(folder: Path) -> dict[str, Any]:
    """The document."""
    machine, verified = folder / "machine.json", folder / "verify.json"
    stages = sorted(folder.glob("*.stage.json"), key=lambda path: path.stat().st_mtime)
    return {
        "machine": json.loads(machine.read_text()) if machine.is_file() else None,
        "stages": [json.loads(path.read_text()) for path in stages],
        "tests": {path.stem: tests(path) for path in sorted(folder.glob("*.xml"))},
        "rates": rows(folder / "rates.jsonl"),
        "operator": rows(folder / "operator.jsonl"),
        "table7": rows(folder / "table7.jsonl"),
        "counters": counters(folder / "ncu.csv"),
        "verify": json.loads(verified.read_text()) if verified.is_file() else None,
        "engines": {mode(path): rows(path / "rows.jsonl") for path in sorted(folder.glob("engines-*"))},
        "power": {mode(path): power(path) for path in sorted(folder.glob("tegrastats-*.txt"))},
    }


def main() -> None:
    """Write the document, under another name first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    temporary = options.output.with_suffix(".partial")
    temporary.write_text(json.dumps(collect(options.folder), indent=1) + "\n")
    temporary.rename(options.output)


if __name__ == "__main__":
    main()
