"""Rows of what a Jetson finds in scripts/on-gpu.sh: its engines' times and masks, and its power."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran


def verified(results: dict[str, Any]) -> Iterator[Measurement]:
    """Masks of a Jetson's engines against PyTorch's."""
    for row in (results["verify"] or {"results": ()})["results"]:
        yield Measurement(
            kind="gpu-verify",
            label=row["target"],
            case={"target": row["target"], "precision": row["precision"], "least_miou": row["least_miou"]},
            metrics={name: Metric(value=row[name]) for name in ("miou", "flipped")},
            problems=() if row["passed"] else ("the masks are not PyTorch's",),
            ran=Ran(backend=row["backend"], requested=row["precision"]),
        )


def power(results: dict[str, Any]) -> Iterator[Measurement]:
    """Power of each rail of a Jetson while its engines were measured, by power mode."""
    for mode, found in results["power"].items():
        if not found["milliwatts"]:
            reason = "tegrastats named no power rail"
            case = {"mode": mode, "rail": None}
            yield Measurement(
                kind="gpu-power", label=mode, case=case, metrics={"power": Metric(unit="W")}, problems=(reason,)
            )
        for rail, milliwatts in found["milliwatts"].items():
            watts = tuple(value / 1e3 for value in milliwatts)
            yield Measurement(
                kind="gpu-power",
                label=f"{mode}:{rail}",
                case={"mode": mode, "rail": rail, "gpu_mhz": sorted(set(found["gpu_mhz"]))},
                metrics={"power": Metric(unit="W", samples=watts, source="tegrastats")},
            )


def engines(results: dict[str, Any]) -> list[Measurement]:
    """The rows of `avsbg bench run`, with their own machine; a `BenchmarkError` if one is none of this version's."""
    rows = []
    for mode, found in results["engines"].items():
        for number, row in enumerate(found, start=1):
            try:
                rows.append(Measurement.model_validate_json(json.dumps(row)))
            except ValidationError as error:
                message = error.errors(include_url=False)[0]["msg"]
                problem = f"engines of the power mode {mode}, row {number}: {message}."
                raise BenchmarkError(problem, "Make rows with the version of avsbg that measured.") from error
    return rows
