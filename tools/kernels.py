"""The compiler's table of the CUDA kernels, made without a GPU: `python -m tools.kernels`.

For each architecture and kernel: registers, spills, shared memory, how many blocks fit on a multiprocessor, and what
the main loop holds according to the disassembly. Needs a CUDA toolkit (nvcc), a C++ compiler and nvdisasm (in the
toolkit or from the PyPI package nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.tables import markdown_of
from avsbg.benchmarks.static.counts import CUDA_SOURCES, KERNELS, source_digest
from tools import command

OPERANDS = {"Fp32": "fp32", "Tf32": "tf32", "Fp16": "fp16", "Bf16": "bf16"}
OUTPUTS = ("mean_a", "both means", "volume")
BLOCK_THREADS = 128

# Threads and bytes of shared memory of a multiprocessor. Source: CUDA C++ Programming Guide, "Technical specifications
# per compute capability". Everything else that limits occupancy, cuda_occupancy.h knows.
MULTIPROCESSORS = {
    75: (1024, 64 * 1024),
    80: (2048, 164 * 1024),
    86: (1536, 100 * 1024),
    87: (1536, 164 * 1024),
    89: (1536, 100 * 1024),
    90: (2048, 228 * 1024),
    100: (2048, 228 * 1024),
    110: (1536, 228 * 1024),
    120: (1536, 100 * 1024),
    121: (1536, 100 * 1024),
}

# Beginnings of the opcodes that are counted in the main loop.
_COUNTED = {"tensor_core": "HMMA", "fp32_fma": "FFMA", "ldmatrix": "LDSM", "async_copies": "LDGSTS", "barriers": "BAR"}
_RESOURCES = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<spill_stores>\d+) bytes spill stores, "
    r"(?P<spill_loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<memory>[^\n]*)",
    re.DOTALL,
)
_KERNEL = re.compile(r"CorrelationINS_4(\w{4})ELb([01])ELNS_6OutputE(\d)")


def find_tool(name: str, hint: str = "Install the CUDA toolkit and put its bin folder on PATH.") -> str:
    """The path of a program on PATH or among the CUDA tools of the Python environment."""
    packaged = sorted(Path(sys.prefix).glob(f"lib/python*/site-packages/nvidia/*/bin/{name}"))
    if found := shutil.which(name) or (str(packaged[-1]) if packaged else None):
        return found
    raise BenchmarkError(f"{name} was not found.", hint)


def _run(line: Sequence[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(line, input=text, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchmarkError(f"{Path(line[0]).name} failed: {result.stderr.strip()[-2000:]}", " ".join(line))
    return result


def kernel_name(mangled: str) -> str | None:
    """As "fp16, resident, mean_a" for a correlation kernel, "combine" for the second stage, None for anything else."""
    if match := _KERNEL.search(mangled):
        schedule = "resident" if match[2] == "1" else "streamed"
        return f"{OPERANDS[match[1]]}, {schedule}, {OUTPUTS[int(match[3])]}"
    return "combine" if "combine" in mangled else None


def main_loop(lines: Sequence[str]) -> dict[str, int]:
    """Counts over the loop that holds the most multiplications, from its label to the branch back to it.

    Instructions that a false predicate (@!PT) turns off are left out. Both sides of a branch inside it are counted.
    """
    instructions: list[str] = []
    labels: dict[str, int] = {}
    loops: list[Counter[str]] = []
    for line in lines:
        if label := re.match(r"(\.L_x_\d+):", line.strip()):
            labels[label[1]] = len(instructions)
        if instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction[1].strip())
    for end, last in enumerate(instructions):
        back = re.search(r"\bBRA\b.*?\(?(\.L_x_\d+)", last)
        start = labels.get(back[1], end + 1) if back else end + 1
        if start < end:
            body = [text for text in instructions[start : end + 1] if not text.startswith("@!PT")]
            opcodes = Counter(re.sub(r"^@!?U?P\w+\s+", "", text).split()[0] for text in body)
            counts = Counter({"instructions": len(body)})
            for name, beginning in _COUNTED.items():
                counts[name] = sum(count for opcode, count in opcodes.items() if opcode.startswith(beginning))
            loops.append(counts)
    if not loops:
        return {}
    return dict(max(loops, key=lambda counts: (counts["tensor_core"], counts["fp32_fma"], -counts["instructions"])))


def inspect(architecture: int, folder: Path) -> list[dict[str, Any]]:
    """Compile the kernels for one architecture; a row for each kernel, but for those that the architecture declines.

    A row has bytes, the registers of a thread, and in `loop` the instructions of the main loop.
    """
    nvcc = find_tool("nvcc")
    nvdisasm = find_tool("nvdisasm", "Install the CUDA toolkit's nvdisasm, or: pip install nvidia-cuda-nvdisasm")
    cubin = folder / f"sm_{architecture}.cubin"
    line = [nvcc, "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v", f"-I{CUDA_SOURCES}"]
    report = _run([*line, str(CUDA_SOURCES / "correlation.cu"), "-o", str(cubin)]).stderr
    sections = _run([nvdisasm, "-c", str(cubin)]).stdout.split("//--------------------- .text.")[1:]
    loops = {text.split()[0]: main_loop(text.split("//---------------------")[0].splitlines()) for text in sections}
    found = []  # kernel, what ptxas said, shared memory
    for match in _RESOURCES.finditer(report):
        kernel = kernel_name(match["name"])
        if kernel is None or (architecture < 80 and kernel.startswith(("tf32", "bf16"))):
            continue
        smem = re.search(r"(\d+) bytes smem", match["memory"])
        found.append((kernel, match, int(smem[1]) if smem else 0))
    found.sort(key=lambda row: row[0])
    device = f"{architecture // 10} {architecture % 10} {' '.join(map(str, MULTIPROCESSORS[architecture]))}"
    questions = [f"{device} {match['registers']} {shared} {BLOCK_THREADS}" for _, match, shared in found]
    if not (program := folder / "occupancy").exists():
        _run([nvcc, "-std=c++17", str(Path(__file__).with_name("occupancy.cpp")), "-o", str(program)])
    blocks = _run([str(program)], "\n".join(questions)).stdout.split()
    return [
        {
            "architecture": architecture,
            "kernel": kernel,
            **{name: int(match[name]) for name in ("registers", "stack", "spill_stores", "spill_loads")},
            "shared": shared,
            "blocks_per_sm": int(count),
            "loop": loops[match["name"]],
        }
        for (kernel, match, shared), count in zip(found, blocks, strict=True)
    ]


def nvcc_version() -> str:
    """As `13.0.48`."""
    match = re.search(r"V(\d+\.\d+\.\d+)", _run([find_tool("nvcc"), "--version"]).stdout)
    return match[1] if match else "unknown"


def kernel_table(path: Path) -> str:
    """Registers, shared memory, occupancy and tensor-core instructions of the CUDA kernels, by architecture."""
    kernels = json.loads(path.read_text(encoding="utf-8"))["kernels"]
    rows = {row["architecture"]: row | row["loop"] for row in kernels if row["kernel"] == "fp16, resident, both means"}
    quantities = {
        "registers": "registers",
        "shared": "shared memory, bytes",
        "blocks_per_sm": "blocks on a multiprocessor",
        "tensor_core": "`mma` in the main loop",
    }
    shown = (75, 80, 87, 90, 100, 120)
    lines = [(title, *(rows[number][key] for number in shown)) for key, title in quantities.items()]
    return markdown_of(("", *(f"sm_{number}" for number in shown)), lines)


@command
def main(
    architecture: Annotated[
        list[int] | None, typer.Option(help="Only this one, as 87; may be repeated. Shown, not written.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the table of all architectures is written.")] = KERNELS,
) -> None:
    """Compile the CUDA kernels for every architecture and tabulate registers, occupancy and main loop."""
    wanted = architecture or list(MULTIPROCESSORS)
    if unknown := [item for item in wanted if item not in MULTIPROCESSORS]:
        known = ", ".join(map(str, MULTIPROCESSORS))
        raise BenchmarkError(f"Architecture {unknown[0]} is not known here.", f"Choose from {known}.")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for item in wanted:
            typer.echo(f"compiling for sm_{item}", err=True)
            rows += inspect(item, Path(folder))
    for row in rows:
        typer.echo(json.dumps(row))
    if architecture is None:
        head = {"command": "python -m tools.kernels", "nvcc": nvcc_version(), "sources_sha256": source_digest()}
        # One line per kernel, so that a change of a kernel shows as a change of its lines.
        lines = ",\n".join("  " + json.dumps(row) for row in rows)
        with atomic_file(output) as temporary:
            temporary.write_text(json.dumps(head, indent=1)[:-2] + f',\n "kernels": [\n{lines}\n ]\n}}\n')
        typer.echo(f"written to {output}", err=True)
