"""The results of scripts/on-gpu.sh as rows of the benchmarks, which pages and tables take.

    python -m tools.gpu_rows out/gpu/results.json -o benchmarks/results/gpu-NAME.jsonl

The script itself needs no package of ours but the checkout, so it writes plain JSON; this reads it on any machine. Rows
of `avsbg bench run`, which a Jetson makes of its engines, are taken as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from avsbg import __version__
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import (
    Environment,
    GpuState,
    MachineState,
    Measurement,
    Metric,
    Ran,
    Run,
    write_rows,
)
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.model import named_variant
from tools import Output, command, jetson_rows

CHANNELS = 128  # of scripts/gpu/operator_speed.py
# Units of rates in results.json, each as a multiple of our unit.
_RATES = {"tflops": ("FLOP/s", 1e12), "gigabytes_per_second": ("B/s", 1e9), "us": ("s", 1e-6)}
_SCALE = {"us": 1e-6, "ms": 1e-3}
_REFERENCE = ("avs-bg", "published", "fp32", "eager")


def gpu_rows(results: dict[str, Any]) -> list[Measurement]:
    """All that a run found, one measurement each, with the start of its stage; what failed or was skipped is one too.

    A `BenchmarkError` where the results say of no machine what made them.
    """
    machine = results["machine"]
    if machine is None:
        raise BenchmarkError("the results do not say what machine they are of.", "Run the stage machine as well.")
    environment = _environment(machine)
    torch = {"backend": "torch", "version": machine["packages"].get("torch")}
    torch |= {"device": "cuda", "gpu": machine["gpus"][0]["name"]} if machine["gpus"] else {"device": "cpu"}
    rows = [(stage["stage"], _stage(stage, results["tests"].get(stage["stage"]))) for stage in results["stages"]]
    rows += [("operator", row) for row in _operator(results, machine)]
    rows += [("table7", row) for row in _table7(results, machine, torch)]
    rows += [("operator", row) for row in _rates(results, machine)]
    rows += [("ncu", row) for row in _counters(results)]
    rows += [("engines", row) for row in (*jetson_rows.verified(results), *jetson_rows.power(results))]
    started = {stage["stage"]: datetime.fromisoformat(stage["started"]) for stage in results["stages"]}
    made = [
        row.model_copy(update={"environment": environment, "run": _run(machine, started.get(stage), row.run)})
        for stage, row in rows
    ]
    return [*made, *jetson_rows.engines(results)]


def _stage(stage: dict[str, Any], tests: dict[str, int] | None) -> Measurement:
    metrics = {"time": Metric(unit="s", value=stage["seconds"])}
    if tests is not None:
        failed = tests["failures"] + tests["errors"]
        counts = {"tests": tests["tests"] - tests["skipped"], "failed": failed, "skipped": tests["skipped"]}
        metrics |= {name: Metric(value=count) for name, count in counts.items()}
    problems = () if stage["result"] == "passed" else (f"{stage['result']} {stage['reason']}".strip(),)
    return Measurement(
        kind="gpu-stage",
        label=stage["stage"],
        case={"stage": stage["stage"], "result": stage["result"]},
        metrics=metrics,
        problems=problems,
    )


def _operator(results: dict[str, Any], machine: dict[str, Any]) -> Iterator[Measurement]:
    """Rows of one stage, whose `side` is a number, and of several, whose `side` is a list."""
    for row in (row for row in results["operator"] if row["kind"] == "operator"):
        sides = row["sides"]
        operations = sum(2 * row["n"] * side**4 * CHANNELS for side in sides)
        metrics = {"operations": Metric(unit="FLOP", value=operations)}
        side = sides if len(sides) > 1 else sides[0]
        metrics |= {name: _times(row[key], "us") for name, key in _LATENCIES.items() if key in row}
        if "error" in row:
            metrics["relative_error"] = Metric(value=row["error"])
        yield Measurement(
            kind="gpu-operator",
            label=f"{row['way']}:{row['precision']}",
            case={"implementation": row["way"], "side": side, "pairs": row["n"], "channels": CHANNELS},
            metrics=metrics | _memory(row),
            problems=_problems(row),
            **_clocks(row, machine),
            ran=Ran(requested=row["precision"]),
        )


_LATENCIES = {"latency": "warm_us", "cold_latency": "cold_us"}


def _table7(results: dict[str, Any], machine: dict[str, Any], torch: dict[str, Any]) -> Iterator[Measurement]:
    """Rows like those of `avsbg bench run`; ratios are to the published form, eager, in fp32, of the same run."""
    found = {(row["network"], row["operator"], row["precision"]): row for row in results["table7"]}
    first = found.get(_REFERENCE[:3], {}).get("eager_ms")
    for key, row in found.items():
        form = "published" if row["operator"] == "published" else "efficient"
        case = {"scope": "model", "clips": row["clips"], "frames": row["frames"], "height": row["side"]}
        case |= {"width": row["side"], "audio": "audio_embedding"}
        for mode in ("eager", "graph"):
            if mode == "graph" and not row.keys() & {"graph_ms", "graph_failed", "failed"}:
                continue  # of a processor, which has no CUDA graphs
            label = ":".join((*key, mode))
            ran = Ran(
                network=f"{row['network']}-{row['encoder']}",
                variant=named_variant(row["network"], encoder=row["encoder"]).to_dict() | {"form": form},
                weights={"formula": "table7"},
                backend={
                    **torch,
                    "operator": row["operator"],
                    "precision": row["precision"],
                    "cuda_graph": mode == "graph",
                },
                requested=row["precision"],
            )
            if f"{mode}_ms" not in row or first is None:
                reasons = _problems(row) or ("it has no times, or those of the reference are missing",)
                yield Measurement(kind="gpu-failure", label=label, case=case, metrics={}, problems=reasons, ran=ran)
                continue
            times = row[f"{mode}_ms"]
            metrics = {
                "latency": _times(times, "ms"),
                "ratio": Metric.of(paired_ratio(times["each"], first["each"])),
                **_memory(row),
            }
            yield Measurement(
                kind="latency",
                label=label,
                case=case,
                metrics=metrics,
                problems=_throttling(row),
                ran=ran,
                **_clocks(row, machine),
            )


def _rates(results: dict[str, Any], machine: dict[str, Any]) -> Iterator[Measurement]:
    for row in results["rates"] + [row for row in results["operator"] if row["kind"] == "rate"]:
        for key, (unit, factor) in _RATES.items():
            if key in row:
                metric = Metric(unit=unit, value=row[key] * factor)  # type: ignore[arg-type]
                yield Measurement(
                    kind="gpu-rate",
                    label=row["name"],
                    case={"name": row["name"]},
                    metrics={"rate": metric},
                    problems=_throttling(row),
                    **_clocks(row, machine),
                )


def _counters(results: dict[str, Any]) -> Iterator[Measurement]:
    """Counts of ncu in its own units, which are named beside."""
    for row in results["counters"]:
        case = {name: row[name] for name in ("problem", "kernel", "metric", "unit")}
        text = (row["value"] or "").replace(",", "")
        is_number = text.replace(".", "", 1).isdigit()
        yield Measurement(
            kind="gpu-counter",
            label=row["metric"] or "",
            case=case,
            metrics={"count": Metric(value=float(text))} if is_number else {},
            problems=() if is_number else (f"ncu says {row['value']!r}",),
        )


def _times(summary: dict[str, Any], unit: str) -> Metric:
    return Metric(unit="s", samples=tuple(_SCALE[unit] * sample for sample in summary["each"]))


def _memory(row: dict[str, Any]) -> dict[str, Metric]:
    """The memory of a call on the GPU, which is not that of a process, as `peak_memory` is."""
    if "peak_bytes" not in row:
        return {}
    return {"allocated_memory": Metric(unit="B", value=row["peak_bytes"], source="torch.cuda.max_memory_allocated")}


def _problems(row: dict[str, Any]) -> tuple[str, ...]:
    """The reasons for which a row is no result."""
    wrong = ("the result is wrong",) if row.get("is_right") is False else ()
    failed = (str(row[key]) for key in ("failed", "graph_failed") if key in row)
    return (*wrong, *failed, *_throttling(row))


def _throttling(row: dict[str, Any]) -> tuple[str, ...]:
    """The problem that the GPU lowered its clocks while the row was sampled."""
    return (f"the GPU throttled: {', '.join(row['throttled'])}",) if row.get("throttled") else ()


def _clocks(row: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """The GPU's state before and after the row's samples as fields of a measurement; a note where it is not known."""
    if "clocks_unknown" in row:
        return {"notes": (f"the GPU's clocks and throttling are unknown: {row['clocks_unknown']}",)}
    if "before" not in row:
        return {}
    return {"run": Run(before=_machine_state(machine, row["before"]), after=_machine_state(machine, row["after"]))}


def _environment(machine: dict[str, Any]) -> Environment:
    commit = machine["commit"]
    return Environment(
        avsbg=__version__,
        commit=None if commit is None else commit + "-dirty" * machine["is_modified"],
        python=machine["python"],
        system=machine["platform"],
        processor=machine["processor"],
        flags=(),
        physical_cores=None,
        logical_cores=len(machine["cores"]),
        cores=tuple(machine["cores"]),
        memory=machine["memory"],
        load_average=tuple(machine["load_average"]),
        packages={name: version for name, version in machine["packages"].items() if version is not None},
    )


def _machine_state(machine: dict[str, Any], gpu: dict[str, Any] | None) -> MachineState:
    """The machine with its first GPU in a state that the programs of scripts/gpu read; without clocks if none did."""
    if not machine["gpus"]:
        return MachineState(cpu_mhz=None, resident=0)
    unread = {"clocks_mhz": {}, "temperature": None, "power_mode": machine["power_mode"]}
    read = gpu or {**unread, "power_watts": None, "throttled": ()}
    state = GpuState(name=machine["gpus"][0]["name"], driver=machine["driver"], **read)
    return MachineState(cpu_mhz=None, resident=0, gpu=state)


def _run(machine: dict[str, Any], started: datetime | None, measured: Run) -> Run:
    """The run of a row: the states that were read around its samples, and what holds for all rows."""
    before = measured.before or _machine_state(machine, None)
    settings = {"reference": ":".join(_REFERENCE), "clocks": machine["clocks"], "cuda_driver": machine["cuda_driver"]}
    command = ("scripts/on-gpu.sh",)
    return Run(started=started, command=command, settings=settings, before=before, after=measured.after)


@command
def main(results: Annotated[Path, typer.Argument(help="results.json of a run.")], output: Output) -> None:
    """Write the rows, and say how many of each kind there are."""
    rows = gpu_rows(json.loads(results.read_text(encoding="utf-8")))
    write_rows(output, rows)
    for kind in dict.fromkeys(row.kind for row in rows):
        typer.echo(f"{kind}: {sum(row.kind == kind for row in rows)} rows")
