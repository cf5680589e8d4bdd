"""The results of scripts/on-gpu.sh in one JSON file: the machine, what became of each stage, rows, counters, tests."""

from __future__ import annotations

import argparse
import csv
import json
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


def tests(path: Path) -> dict[str, int]:
    """Counts of a report in JUnit's form: tests, failed and skipped ones."""
    if not path.is_file():
        return {}
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    counted = ("tests", "failures", "errors", "skipped")
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in counted}


def collect(folder: Path) -> dict[str, Any]:
    """The document."""
    machine = folder / "machine.json"
    stages = sorted(folder.glob("*.stage.json"), key=lambda path: path.stat().st_mtime)
    return {
        "machine": json.loads(machine.read_text()) if machine.is_file() else None,
        "stages": [json.loads(path.read_text()) for path in stages],
        "tests": tests(folder / "kernels.xml"),
        "rates": rows(folder / "rates.jsonl"),
        "operator": rows(folder / "operator.jsonl"),
        "table7": rows(folder / "table7.jsonl"),
        "counters": counters(folder / "ncu.csv"),
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
