"""Tables of the correlation operator, and of what needs no run: engines, activation memory, merges, kernels, limits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avsbg.benchmarks.report.tables import Columns, Table, make_table, markdown, number, with_interval
from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.stability import LIMITS
from avsbg.benchmarks.static.counts import merge_key, read_counts
from avsbg.benchmarks.static.roofline import SIDES, Device, Work, bounds, load_devices

# The side of the largest map, which the first stage has.
_LARGEST = 56
_FRAMES = 5
_NETWORK = "avs-bg"
# What is merged, for people, and the network's operations in one merge each.
MERGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "`head.0` on the enlarged map of `decoder.3`": (("network.decoder.3/Resize", "network.head.0/Conv"),),
    "`head.2` on the map that `head.1` enlarges, and `head.4`": (
        ("network.head.1/Resize", "network.head.2/Conv", "network.head.3/Relu", "network.head.4/Conv"),
    ),
    "`conv2` and `conv3` of the four `fusion` gates": tuple(
        (f"network.fusion.{stage}.conv2/Conv", f"network.fusion.{stage}.conv3/Conv") for stage in range(4)
    ),
}
_KERNEL = "fp16, resident, both means"
_ARCHITECTURES = (75, 80, 87, 90, 100, 120)


# ---- the correlation operator on a processor -------------------------------------------------------------------------


def operator_text(rows: Sequence[Measurement]) -> str:
    """The operator's benchmark as the measured part of docs/operator-cpu.md."""
    environment = rows[0].environment
    assert environment is not None
    compared = [row for row in rows if row.kind == "operator" and "speedup over torch" in row.metrics]
    columns: Columns[Measurement] = [
        ("threads", lambda row: row.case["threads"]),
        ("positions", _positions),
        ("case", lambda row: f"**{row.label}** ({row.case['path']})" if row.case["path"] else row.label),
        ("p50 ms", lambda row: f"{1e3 * row['p50'].number:.3f}"),
        ("p90 ms", lambda row: f"{1e3 * row['p90'].number:.3f}"),
        ("GFLOP/s", lambda row: f"{_rate(row, 'p50'):.0f}"),
        ("of sgemm", lambda row: with_interval(row["share_of_sgemm"], ".0%")),
        ("times torch", lambda row: f"{row['speedup over torch'].number:.2f}"),
        ("peak MiB", lambda row: _mebibytes(row, "-")),
    ]
    ratios = " and ".join(
        f"{with_interval(row['four_over_five'], '.2f')} of the time of five on {_threads(row)}"
        for row in rows
        if row.kind == "operator-clip" and row.case["side"] == _LARGEST
    )
    load = environment.load_average[0]
    busy = (
        " Other programs were running, so the ratios within a round say more than the milliseconds do, and several "
        "threads suffer more than one."
    )
    return "\n\n".join(
        [
            f"{environment.processor}, {environment.physical_cores} cores; load average {load:.1f} at the start, "
            f"nothing dropped.{busy if load > 0.5 else ''}",
            markdown(compared, columns),
            "A clip of five frames takes four products, since the second mean of the last pair serves the last frame. "
            f"At {_LARGEST} x {_LARGEST} four products take {ratios}.",
        ]
    )


def operator_tables(rows: Sequence[Measurement]) -> list[Table]:
    """The operator's benchmark for a terminal, a table for each number of threads."""
    columns: Columns[Measurement] = [
        ("case", lambda row: f"{row.label} ({row.case['path']})" if row.case["path"] else row.label),
        ("positions", lambda row: number(_positions(row) if row.case["pairs"] else "")),
        ("p50 ms", lambda row: number(f"{1e3 * row['p50'].number:.3f}")),
        ("p90", lambda row: number(f"{1e3 * row['p90'].number:.3f}")),
        ("p99", lambda row: number(f"{1e3 * row['p99'].number:.3f}")),
        ("GFLOP/s\np50", lambda row: number(f"{_rate(row, 'p50'):.1f}")),
        ("best", lambda row: number(f"{_rate(row, 'best'):.1f}")),
        ("of sgemm\nmedian", lambda row: number(f"{row['share_of_sgemm'].number:.1%}")),
        ("best", lambda row: number(f"{row['best_share_of_sgemm'].number:.1%}")),
        ("times\ntorch", lambda row: number(_speedup(row, "torch"))),
        ("times\nonnxruntime", lambda row: number(_speedup(row, "onnxruntime"))),
        ("peak\nMiB", lambda row: number(_mebibytes(row, ""))),
    ]
    operators = [row for row in rows if row.kind == "operator"]
    return [
        make_table(
            [row for row in operators if row.case["threads"] == threads],
            columns,
            f"Mean correlation, {threads} thread{'s' if threads > 1 else ''}",
        )
        for threads in sorted({row.case["threads"] for row in operators})
    ]


def describe_clip(row: Measurement) -> str:
    """The ratio of four products, which a clip of five frames takes, to five as a line."""
    return (
        f"T = 5 at {_positions(row)}, {_threads(row)}: four products take {with_interval(row['four_over_five'])} "
        "of the time of five"
    )


def _positions(row: Measurement) -> str:
    return f"{row.case['side']} x {row.case['side']}"


def _threads(row: Measurement) -> str:
    return f"{row.case['threads']} thread{'s' if row.case['threads'] > 1 else ''}"


def _rate(row: Measurement, percentile: str) -> float:
    """1e9 operations per second."""
    return row["operations"].number / row[percentile].number / 1e9


def _speedup(row: Measurement, other: str) -> str:
    value = row.value(f"speedup over {other}")
    return "" if value is None else f"{value:.2f}"


def _mebibytes(row: Measurement, otherwise: str) -> str:
    memory = row.value("peak_memory")
    return otherwise if memory is None else f"{memory / 2**20:.1f}"


# ---- engines ---------------------------------------------------------------------------------------------------------


def engine_table(rows: Sequence[Measurement]) -> str:
    """Engines side by side, by what their builder reported, as Markdown; MB are 10^6 bytes."""

    def capabilities(row: Measurement) -> list[int]:
        numbers: list[int] = row.case["device"]["compute_capabilities"]
        return numbers

    def order(row: Measurement) -> tuple[Any, ...]:
        case = row.case
        streams = case["options"].get("max_aux_streams", -1)
        return row.ran.network, case["clips"], case["precision"], case["operator"], capabilities(row), streams

    columns: Columns[Measurement] = [
        ("network", lambda row: row.ran.network),
        ("clips", lambda row: row.case["clips"]),
        ("precision", lambda row: row.case["precision"]),
        ("operator", lambda row: row.case["operator"]),
        ("for", lambda row: ", ".join(f"{number / 10:.1f}" for number in capabilities(row))),
        ("further streams", lambda row: row.case["options"].get("max_aux_streams", "its choice")),
        ("engine MB", lambda row: _megabytes(row, "engine_bytes")),
        ("layers", lambda row: row["layers"].number),
        ("activation MB", lambda row: _megabytes(row, "activation_memory")),
        ("weights MB", lambda row: _megabytes(row, "weights_memory")),
        ("build s", lambda row: f"{row['build'].number:.0f}"),
    ]
    return markdown(sorted(rows, key=order), columns)


def _megabytes(row: Measurement, metric: str) -> str:
    size = row.value(metric)
    return "not reported" if size is None else f"{size / 1e6:.1f}"


def activation_table(rows: Sequence[Measurement], engines: Sequence[Measurement]) -> str:
    """Activation memory of graphs as Markdown, beside what the builder reported for the same graph.

    An engine stands beside a graph of the same network, name and number of clips, whether or not it was built from this
    very export; where several do, the one that takes the least memory. MB are 10^6 bytes.
    """

    def parts(row: Measurement) -> str:
        sizes = part_sizes(row).items()
        return ", ".join(f"{part} {size / 1e6:.0f}" for part, size in sizes if size >= 5e5)

    def graph(row: Measurement) -> tuple[str, str, int]:
        return row.ran.network, row.case["graph"], row.case["clips"]

    def built(row: Measurement) -> str:
        sizes = [engine.value("activation_memory") for engine in engines if graph(engine) == graph(row)]
        known = [size for size in sizes if size is not None]
        return f"{min(known) / 1e6:.0f}" if known else "not built"

    columns: Columns[Measurement] = [
        ("network", lambda row: row.ran.network),
        ("graph", lambda row: f"`{row.case['graph']}`"),
        ("clips", lambda row: row.case["clips"]),
        ("live tensors MB", lambda row: f"{row['live'].number / 1e6:.0f}"),
        ("in which parts", parts),
        ("at", lambda row: f"{row.case['part']}, `{row.case['node']}`"),
        ("builder MB", built),
    ]
    return markdown(rows, columns)


def part_sizes(row: Measurement) -> dict[str, float]:
    """Bytes of the live tensors by part of the network, the largest first."""
    found: dict[str, float] = {}
    for tensor, size in row["live"].parts.items():
        part = tensor.partition("/")[0]
        found[part] = found.get(part, 0) + size
    return dict(sorted(found.items(), key=lambda item: -item[1]))


# ---- counts and limits -----------------------------------------------------------------------------------------------


def merge_table(path: Path) -> str:
    """Operations of a clip before and after an export's merges, by what is merged, from the committed counts."""
    counts = read_counts(path)
    total = counts["networks"][f"{_NETWORK}, efficient, operations"]
    lines = []
    for title, merges in MERGES.items():
        keys = [merge_key(f"{_NETWORK}-b0", nodes) for nodes in merges]
        before, after = (
            _FRAMES * sum(counts["graphs"][f"{key}, {state}"] for key in keys) for state in ("before", "merged")
        )
        lines.append((title, before, after))
    saved = sum(before - after for _, before, after in lines)
    lines.append(("AVS-BG, PVT-v2-b5", total, total - saved))
    columns: Columns[tuple[str, int, int]] = [
        ("merged", lambda line: line[0]),
        ("GFLOP per clip", lambda line: f"{line[1] / 1e9:.2f}"),
        ("merged", lambda line: f"{line[2] / 1e9:.2f}"),
        ("of the network", lambda line: f"-{(line[1] - line[2]) / total:.1%}"),
    ]
    return markdown(lines, columns)


def kernel_table(path: Path) -> str:
    """Registers, shared memory, occupancy and tensor-core instructions of the CUDA kernels, by architecture."""
    kernels = json.loads(path.read_text(encoding="utf-8"))["kernels"]
    rows = {row["architecture"]: row for row in kernels if row["kernel"] == _KERNEL}
    quantities = {
        "registers": lambda row: row["registers"],
        "shared memory, bytes": lambda row: row["shared"],
        "blocks on a multiprocessor": lambda row: row["blocks_per_sm"],
        "`mma` in the main loop": lambda row: row["loop"]["tensor_core"],
    }
    columns: Columns[str] = [
        ("", lambda name: name),
        *((f"sm_{number}", lambda name, n=number: quantities[name](rows[n])) for number in _ARCHITECTURES),
    ]
    return markdown(quantities, columns)


def limit_table() -> str:
    """The limits of a stable row as docs/benchmarks.md shows them."""
    limits = {
        "samples": f"fewer than {LIMITS.samples}",
        "coefficient of variation": f"above {LIMITS.variation:.0%}",
        "drift: median of the last quarter against the first": f"beyond {LIMITS.drift:.0%} either way",
        "share of all cores used by other processes while sampling, stolen time included": f"above {LIMITS.others:.0%}",
        "logits off PyTorch, in fp32": f"above {LIMITS.logit_difference:g}, the tolerance of `avsbg verify`",
        "mean IoU with PyTorch's masks, in a reduced precision": f"below {LIMITS.miou:g}",
    }
    return markdown(limits.items(), [("limit", lambda item: item[0]), ("", lambda item: item[1])])


# ---- bounds of the correlation operator on devices that were not measured --------------------------------------------


def peak_table(path: Path) -> str:
    """The devices' published peaks, with their sources."""
    columns: Columns[Device] = [
        ("device", lambda device: device.name),
        (
            "tensor cores, dense fp16",
            lambda device: (
                f"{device.multiprocessors} SM x {device.fp16_flop_per_clock} FLOP/clock x "
                f"{device.clock_ghz} GHz = {device.tensor_tflops:.1f} TFLOPS"
            ),
        ),
        (
            "fp32 instructions",
            lambda device: (
                f"{device.multiprocessors} x {device.fp32_lanes} x {device.clock_ghz} GHz = {device.lane_tops:.2f} T/s"
            ),
        ),
        ("memory", lambda device: f"{device.bandwidth_gb_s:g} GB/s"),
        (
            "check",
            lambda device: (
                f"x {device.check.over_dense_fp16} = "
                f"{device.tensor_tflops * device.check.over_dense_fp16:.0f}; published: {device.check.figure}"
            ),
        ),
    ]
    devices = load_devices(path)
    sources = "\n".join(f"* {device.name}: {device.source}." for device in devices)
    return f"{markdown(devices, columns)}\n\nSources:\n\n{sources}"


def bound_table(path: Path) -> str:
    """The bounds of one call on each device, in microseconds, and how a cell comes about."""
    devices = load_devices(path)
    rows = [(device.name, side, bounds(device, side)) for device in devices for side in SIDES]
    columns: Columns[tuple[str, int, dict[str, float]]] = [
        ("device", lambda row: row[0]),
        ("side", lambda row: row[1]),
        ("tensor cores", lambda row: _microseconds(row[2]["tensor cores"])),
        ("ReLU and sums", lambda row: _microseconds(row[2]["ReLU and sums"])),
        ("memory", lambda row: _microseconds(row[2]["memory"])),
        ("**bound**", lambda row: f"**{_microseconds(row[2][_bound_by(row[2])])}**"),
        ("by", lambda row: _bound_by(row[2])),
        ("stored volume's traffic", lambda row: _microseconds(row[2]["volume"])),
    ]
    device, work, times = devices[0], Work(side=SIDES[0]), rows[0][2]
    return (
        f"{markdown(rows, columns)}\n\nHow to read a cell: {device.name}, side {work.side}, tensor cores: "
        f"{work.flop / 1e9:.2f} GFLOP / {device.tensor_tflops:.1f} TFLOPS = {_microseconds(times['tensor cores'])} us; "
        f"memory: {work.compulsory_bytes / 1e6:.2f} MB / {device.bandwidth_gb_s:g} GB/s = "
        f"{_microseconds(times['memory'])} us."
    )


def _bound_by(times: Mapping[str, float]) -> str:
    return max((resource for resource in times if resource != "volume"), key=lambda resource: times[resource])


def _microseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
