"""Counts that are independent of system load, compared with the committed ones.

`python -m avsbg.benchmarks counts` (`make bench-smoke`) says what changed by how much; `--update` makes what is
counted now the committed counts.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.static import instructions

ROOT = Path(__file__).resolve().parents[2]
COUNTS = ROOT / "benchmarks" / "results" / "counts.json"
KERNELS = ROOT / "benchmarks" / "results" / "kernel_static.json"  # made by tools.kernels
CUDA_SOURCES = ROOT / "runtime" / "native" / "cuda"
COMMAND = "python -m avsbg.benchmarks counts"
COUNTED = ("avs-bg", "avsbench", "avs-bg-resnet50", "avsbench-resnet50")
# The C library, which picks its copying by the processor, takes part in the operator's instructions.
TOLERANCE = 0.002

Counts = dict[str, int]
# Section -> what is counted -> how often. A section that names a tool belongs to that version of it.
Sections = dict[str, Counts]


def count_networks() -> Counts:
    """Operations by part and bytes of fp32 weights, of a clip of 224 x 224; on the meta device, nothing is computed."""
    import torch

    from avsbg.benchmarks.measure.flops import count_flops
    from avsbg.model import VARIANTS, build, count_parameters

    found: Counts = {}
    for name in COUNTED:
        for form in ("published", "efficient"):
            counted = count_flops(replace(VARIANTS[name], form=form), frames=5, height=224, width=224)
            found[f"{name}, {form}, operations"] = int(counted.number)
            found |= {f"{name}, {form}, operations of {part}": int(count) for part, count in counted.parts.items()}
        with torch.device("meta"):
            parameters = count_parameters(build(VARIANTS[name]))
        found[f"{name}, bytes of weights as published"] = 4 * parameters.published
        found[f"{name}, bytes of weights needed"] = 4 * parameters.inference
    return found


def count_graphs() -> Counts:
    """Nodes by operator of every graph of both networks, and operations of a frame that are merged, with few blocks.

    The sizes are the papers', and the encoder is the smallest: its blocks are those of a large one.
    """
    from avsbg.export.exporter import export_graphs
    from avsbg.export.graphs import AudioForm
    from avsbg.export.shape import ClipShape
    from avsbg.export.weights import from_seed
    from avsbg.model import NETWORKS, named_variant

    found: Counts = {}
    for name in ("avs-bg", "avsbench"):
        graph, _ = from_seed(named_variant(name, encoder="pvt_v2_b0"), AudioForm.EMBEDDING, seed=1)
        with tempfile.TemporaryDirectory() as folder:
            records = export_graphs(
                graph, ClipShape(), Path(folder), lambda _: None, stream=NETWORKS[name].mixes_frames is None
            )
        for file, record in records.items():
            found[f"{name}-b0, {file}.onnx, nodes"] = record.node_count
            found |= {f"{name}-b0, {file}.onnx, {kind}": count for kind, count in sorted(record.operators.items())}
            if record.merges:
                found[f"{name}-b0, {file}.onnx, merges"] = len(record.merges)
            for merge in record.merges if file == "clip" else ():
                key = merge_key(f"{name}-b0", merge.nodes)
                found |= {f"{key}, before": merge.operations_before, f"{key}, merged": merge.operations_after}
    return found


def merge_key(network: str, nodes: Sequence[str]) -> str:
    """The name of a count of merged operations, up to the comma before `before` or `merged`."""
    return f"{network}, operations a frame of {' and '.join(nodes)}"


def source_digest() -> str:
    """SHA-256 over the names and contents of the kernels' sources, which a table belongs to; not the C interface's."""
    digest = hashlib.sha256()
    kernels = [file for file in CUDA_SOURCES.iterdir() if file.suffix in (".cu", ".cuh", ".h")]
    for source in sorted(file for file in kernels if file.stem != "avsbg_cuda"):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def count_kernels(path: Path = KERNELS) -> Counts:
    """Instructions in the main loop of each CUDA kernel, and its spilled bytes, from the compiler's table."""
    table = json.loads(path.read_text(encoding="utf-8"))
    if table["sources_sha256"] != source_digest():
        raise BenchmarkError(f"{path} is of other CUDA sources than these.", f"Run `{table['command']}`.")
    found: Counts = {}
    for row in table["kernels"]:
        name = f"sm_{row['architecture']}, {row['kernel']}"
        found[f"{name}, instructions of the main loop"] = row["loop"]["instructions"]
        found[f"{name}, bytes spilled"] = row["spill_stores"] + row["spill_loads"]
    return found


def count(*, callgrind: bool = True) -> Sections:
    """All counts of this checkout by section; without callgrind, all that need neither valgrind nor a compiler."""
    table = json.loads(KERNELS.read_text(encoding="utf-8"))
    found = {"networks": count_networks(), "graphs": count_graphs(), f"kernels, nvcc {table['nvcc']}": count_kernels()}
    if callgrind:
        found[f"operator, {instructions.compiler()}"] = instructions.count_instructions()
    return found


def differences(wanted: Counts, found: Counts, *, tolerance: float = 0.0) -> list[str]:
    """List the changes beyond a relative tolerance, one line each and by how much."""
    lines = []
    for name in sorted(wanted.keys() | found.keys()):
        before, now = wanted.get(name), found.get(name)
        if before is None or now is None:
            lines.append(f"{name}: {'new' if before is None else 'gone'}, {now if before is None else f'was {before}'}")
        elif abs(now - before) > tolerance * before:
            share = f" ({now / before - 1:+.2%})" if before else ""
            lines.append(f"{name}: {before} committed, {now} counted, {now - before:+d}{share}")
    return lines


def compare(wanted: Sections, found: Sections) -> tuple[list[str], list[str]]:
    """Changes of what can be compared, and a sentence on each section that cannot.

    A section of another version of its tool is not compared; so is a committed one that was not counted.
    """
    changed, left_out = [], []
    kinds = {section.partition(",")[0]: section for section in found}
    for section, counts in wanted.items():
        kind = section.partition(",")[0]
        if section in found:
            changed += differences(counts, found[section], tolerance=TOLERANCE if kind == "operator" else 0.0)
        elif kind in kinds:
            left_out.append(f"not compared: the committed counts are of {section}; here it is {kinds[kind]}")
        else:
            left_out.append(f"not compared: {section} was not counted")
    committed = {section.partition(",")[0] for section in wanted}
    changed += [f"{section}: no counts are committed" for kind, section in kinds.items() if kind not in committed]
    return changed, left_out


def read_counts(path: Path) -> Sections:
    """The committed counts; a `BenchmarkError` if the file cannot be read."""
    try:
        return dict[str, Counts](json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}.", f"Make it with `{COMMAND} --update`.") from error


def check_counts(path: Path = COUNTS, *, update: bool = False, callgrind: bool = True) -> None:
    """Compare counts with those committed at `path`, which `update` renews first; a `BenchmarkError` if one changed.

    With `callgrind` the CPU operator's instructions are counted too, which needs valgrind and a compiler.
    """
    if update and not callgrind:
        raise BenchmarkError("--update --no-callgrind would lose the operator's counts.", "Install valgrind and g++.")
    found = count(callgrind=callgrind)
    if update:
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    changed, left_out = compare(read_counts(path), found)
    for line in left_out:
        print(line, file=sys.stderr)
    if changed:
        raise BenchmarkError("\n".join(changed), f"\nIf that is meant: `{COMMAND} --update`, and commit {path.name}.")
    print(f"{sum(map(len, found.values()))} counts hold")
