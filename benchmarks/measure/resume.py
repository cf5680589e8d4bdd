"""Rounds added to an earlier run of the same cases on the same machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import Environment, Facts, Measurement, Metric, Ran

# Fields that must not have changed; the load average and the kernel's release may.
_SAME = ("avsbg", "commit", "processor", "flags", "cores", "memory", "packages", "variables")
_HINT = "Measure again, with --overwrite in place of --resume."


def check_resumable(
    earlier: Sequence[Measurement], labels: Sequence[str], cases: Mapping[str, Facts], environment: Environment
) -> None:
    """Raise a `BenchmarkError` unless the rows are of these cases, in this order, on this machine and commit."""
    found = [row.label for row in earlier]
    if found != list(labels):
        raise BenchmarkError(f"the earlier run is of {', '.join(found)}, not of {', '.join(labels)}.", _HINT)
    for row in earlier:
        if row.case != cases[row.label]:
            raise BenchmarkError(f"{row.label} computed something else in the earlier run.", _HINT)
        before = row.environment
        for name in _SAME:
            if before is None or getattr(before, name) != getattr(environment, name):
                was, now = getattr(before, name, None), getattr(environment, name)
                raise BenchmarkError(f"the earlier run has another {name}: {was}, and now {now}.", _HINT)


def check_same(earlier: Measurement, ran: Ran) -> None:
    """Raise a `BenchmarkError` unless the same files run on the same backend as in the earlier row."""
    for name in ("network", "variant", "files", "backend", "requested"):
        if _stable(getattr(earlier.ran, name)) != _stable(getattr(ran, name)):
            raise BenchmarkError(f"{earlier.label} has another {name} than in the earlier run.", _HINT)


def _stable(value: Any) -> Any:
    """A backend's description without what differs from start to start."""
    return {name: one for name, one in value.items() if not name.endswith("_s")} if isinstance(value, dict) else value


def join_rows(earlier: Measurement, row: Measurement) -> Measurement:
    """The row with the earlier one's samples before its own, and those metrics of it that were not measured again.

    What was measured before is told in `run.settings["earlier"]`; `others` is the larger of the two.
    """
    metrics = dict(earlier.metrics) | dict(row.metrics)
    for name, metric in row.metrics.items():
        before = earlier.metrics.get(name, Metric())
        if metric.samples and before.samples:
            metrics[name] = metric.model_copy(update={"samples": (*before.samples, *metric.samples)})
    count = len(earlier["latency"].samples)
    told = {"started": str(earlier.run.started), "rounds": count, "others": earlier.run.others}
    previous = earlier.run.settings.get("earlier", [])
    told["rounds"] = count - sum(one["rounds"] for one in previous)
    others = max(earlier.run.others or 0.0, row.run.others or 0.0)
    settings = row.run.settings | {"earlier": [*previous, told]}
    run = row.run.model_copy(update={"settings": settings, "others": others})
    return row.model_copy(update={"metrics": metrics, "run": run})
