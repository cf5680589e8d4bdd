"""Engines side by side: what their builder said of their memory, layers and size, as rows and as a table.

    avsbg build BUNDLE ...                                  # as many engines as are to be compared
    python -m avsbg.benchmarks.static.engines BUNDLE ... -o benchmarks/results/engines.jsonl

The rows hold what the bundles' manifests hold. Nothing here is measured on a GPU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from avsbg.atomic import atomic_file
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.engine_record import EngineRecord


def engine_rows(bundle: Bundle) -> list[dict[str, Any]]:
    """One row for each engine of a bundle, as JSON values."""
    return [_row(bundle, name, record) for name, record in bundle.manifest.engines.items()]


def _row(bundle: Bundle, name: str, record: EngineRecord) -> dict[str, Any]:
    manifest = bundle.manifest
    engine = manifest.files[record.file]
    return {
        "network": manifest.name,
        "clip": manifest.clip.model_dump(mode="json"),
        "engine": name,
        "engine_sha256": engine.sha256,
        "engine_bytes": engine.bytes,
        "clips": record.profile["frames"].largest[0],
        **record.model_dump(mode="json", exclude={"commands", "file", "layers_file"}),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table; MB are 10^6 bytes."""
    lines = [
        "| network | clips | precision | operator | for | further streams | engine MB | layers | activation MB | "
        "weights MB | build s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=_order):
        memory = [_megabytes(row["memory"][kind]) for kind in ("activation", "weights")]
        cells = [
            row["network"],
            row["clips"],
            row["precision"],
            row["operator"],
            ", ".join(f"{number / 10:.1f}" for number in row["device"]["compute_capabilities"]),
            row["options"].get("max_aux_streams", "its choice"),
            _megabytes(row["engine_bytes"]),
            row["realised"]["layers"],
            *memory,
            f"{row['build_seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    made_for, streams = row["device"]["compute_capabilities"], row["options"].get("max_aux_streams", -1)
    return row["network"], row["clips"], row["precision"], row["operator"], made_for, streams


def render(path: Path) -> str:
    """Committed rows as the table of docs/engines.md."""
    return table(read_engines(path))


def read_engines(path: Path) -> list[dict[str, Any]]:
    """Committed rows, as JSON values."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _megabytes(size: int | None) -> str:
    return "not reported" if size is None else f"{size / 1e6:.1f}"


def main(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles with engines.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the rows go, as JSON lines.")],
) -> None:
    """Write the engines of bundles as rows, and print them as a table."""
    environment = describe_environment().model_dump(mode="json", include={"avsbg", "commit", "processor", "cores"})
    rows = []
    for path in bundles:
        bundle = Bundle.open(path)
        manifest = sha256(bundle.path / "manifest.json")
        rows += [{**row, "manifest_sha256": manifest, "rows_made_on": environment} for row in engine_rows(bundle)]
    with atomic_file(output) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    typer.run(main)
