"""What the compiler made of the CUDA kernels, as the table of docs/operator.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_KERNEL = "fp16, resident, both means"
_SHOWN = (75, 80, 87, 90, 100, 120)


def render(path: Path) -> str:
    """One column for each architecture shown: registers, shared memory, occupancy, tensor-core instructions."""
    rows: dict[int, dict[str, Any]] = {
        row["architecture"]: row
        for row in json.loads(path.read_text(encoding="utf-8"))["kernels"]
        if row["kernel"] == _KERNEL
    }
    shown = [rows[architecture] for architecture in _SHOWN]
    figures = {
        "registers": [row["registers"] for row in shown],
        "shared memory, bytes": [row["shared"] for row in shown],
        "blocks on a multiprocessor": [row["blocks_per_sm"] for row in shown],
        "`mma` in the main loop": [row["loop"]["tensor_core"] for row in shown],
    }
    lines = [
        f"| | {' | '.join(f'sm_{architecture}' for architecture in _SHOWN)} |",
        "|---" * (len(shown) + 1) + "|",
        *(f"| {name} | {' | '.join(map(str, values))} |" for name, values in figures.items()),
    ]
    return "\n".join(lines)
