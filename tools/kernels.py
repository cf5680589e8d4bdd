"""The compiler's table of the CUDA kernels, made without a GPU: `python -m tools.kernels`.

For each architecture and kernel: registers, spills, shared memory, how many blocks fit on a multiprocessor, and what
the main loop holds according to the disassembly. Needs a CUDA toolkit (nvcc), a C++ compiler and nvdisasm (in the
toolkit or from the PyPI package nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import heapq
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
BRANCHES = {"BRA", "BRA.U"}
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
_KERNEL = re.compile(r"CorrelationINS_4(\w{4})EL[bi](\d+)ELNS_6OutputE(\d)")
_BRANCH = re.compile(r"\(?(\.L_x_\d+)")
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);")


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
    """As "fp16, resident, mean_a" for a correlation kernel, "combine" for the second stage, None for anything else.

    Resident kernels for rows of less than 256 bytes are named with those.
    """
    if match := _KERNEL.search(mangled):
        # Earlier sources had one resident kernel, and said so by 1.
        units = int(match[2])
        schedule = {0: "streamed", 1: "resident", 16: "resident"}.get(units, f"resident {16 * units} B")
        return f"{OPERANDS[match[1]]}, {schedule}, {OUTPUTS[int(match[3])]}"
    return "combine" if "combine" in mangled else None


def _opcode(instruction: str) -> str:
    return re.sub(r"^@!?U?P\w+\s+", "", instruction).split()[0]


def main_loop(lines: Sequence[str]) -> dict[str, int]:
    """Counts over the loop that holds the most multiplications, from its label to the branch back to it.

    Instructions that a false predicate (@!PT) turns off are left out. Both sides of a branch inside it are counted, but
    for `issue_slots`: the instructions that a warp issues for a tile that is whole while the next one is copied.
    """
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in lines:
        if label := re.match(r"(\.L_x_\d+):", line.strip()):
            labels[label[1]] = len(instructions)
        if instruction := _INSTRUCTION.match(line):
            instructions.append(instruction[1].strip())
    loops: list[tuple[int, int, Counter[str]]] = []
    for end, last in enumerate(instructions):
        back = _BRANCH.search(last) if _opcode(last) in BRANCHES else None
        start = labels.get(back[1], end + 1) if back else end + 1
        if start < end:
            body = [text for text in instructions[start : end + 1] if not text.startswith("@!PT")]
            opcodes = Counter(map(_opcode, body))
            counts = Counter({"instructions": len(body)})
            for name, beginning in _COUNTED.items():
                counts[name] = sum(count for opcode, count in opcodes.items() if opcode.startswith(beginning))
            loops.append((start, end, counts))
    if not loops:
        return {}

    def work(counts: Counter[str]) -> tuple[int, int, int]:
        """The innermost loop with all products; divisions of sums around it use some FFMA as well."""
        products = counts["tensor_core"], 0 if counts["tensor_core"] else counts["fp32_fma"] // 256
        return *products, -counts["instructions"]

    start, end, counts = max(loops, key=lambda one: work(one[2]))
    product = "tensor_core" if counts["tensor_core"] else "fp32_fma"
    slots = issue_slots(instructions[: end + 1], labels, start, _COUNTED[product], counts[product])
    return {**counts, **({} if slots is None else {"issue_slots": slots})}


def issue_slots(instructions: Sequence[str], labels: dict[str, int], start: int, product: str, most: int) -> int | None:
    """The instructions on the shortest way around a loop that does all of its multiplications and most of its copies.

    `instructions` end with the loop, which begins at `start` and has `most` multiplications, with opcodes `product`.
    What is off that way happens once for many tiles: the beginning of a query tile, tiles at the edge of a map, and,
    for one warp of four at a time, the sums of a tile over the warps. None for a loop without multiplications.
    """
    ways: dict[tuple[int, int, int], int] = {}
    heap = [(0, start, 0, 0)]
    around: list[tuple[int, int, int]] = []  # products, copies and negated length of each way around
    while heap:
        length, place, products, copies = heapq.heappop(heap)
        if (place, products, copies) in ways or place >= len(instructions) or products > most or copies > 8:
            continue
        ways[place, products, copies] = length
        text = instructions[place]
        opcode, off = _opcode(text), text.startswith("@!PT")
        # A branch may have a predicate of its own behind its opcode.
        conditional = not off and (text.startswith("@") or bool(re.search(r"BRA\S*\s+!?~?U?P\d", text)))
        products += opcode.startswith(product) and not off
        copies += opcode.startswith("LDGSTS") and not off
        branch = _BRANCH.search(text) if opcode in BRANCHES and not off else None
        ends = opcode.startswith(("EXIT", "RET")) or opcode in BRANCHES
        following = ([labels[branch[1]]] if branch else []) + ([place + 1] if conditional or off or not ends else [])
        for number in following:
            if number == start:
                around.append((products, copies, -(length + 1 - off)))
            elif number > start:  # not around an outer loop
                heapq.heappush(heap, (length + 1 - off, number, products, copies))
    products, _, length = max(around, default=(0, 0, 0))
    return -length if products else None


def dependency(lines: Sequence[str]) -> dict[str, int]:
    """Count what programmatic dependent launch needs: waits before the first access to memory, and releases."""
    opcodes = [_opcode(match[1].strip()) for line in lines if (match := _INSTRUCTION.match(line))]
    # A kernel's arguments, which are constant memory, may be read before.
    accesses = (place for place, opcode in enumerate(opcodes) if opcode.startswith(("LDG", "STG", "LD.", "ST.")))
    return {"waits": opcodes[: next(accesses, None)].count("ACQBULK"), "releases": opcodes.count("PREEXIT")}


def inspect(architecture: int, folder: Path, kernels: Path | None = None) -> list[dict[str, Any]]:
    """Compile the kernels for one architecture; a row for each kernel, but for those that the architecture declines.

    A row has bytes, the registers of a thread, the waits and releases of programmatic dependent launch, and in `loop`
    the instructions of the main loop. `kernels` is the folder of other sources than the project's.
    """
    kernels = kernels or CUDA_SOURCES
    nvcc = find_tool("nvcc")
    nvdisasm = find_tool("nvdisasm", "Install the CUDA toolkit's nvdisasm, or: pip install nvidia-cuda-nvdisasm")
    cubin = folder / f"sm_{architecture}.cubin"
    line = [nvcc, "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v", f"-I{kernels}"]
    report = _run([*line, str(kernels / "correlation.cu"), "-o", str(cubin)]).stderr
    sections = _run([nvdisasm, "-c", str(cubin)]).stdout.split("//--------------------- .text.")[1:]
    code = {text.split()[0]: text.split("//---------------------")[0].splitlines() for text in sections}
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
            **dependency(code[match["name"]]),
            "loop": main_loop(code[match["name"]]),
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

    def rows_of(kernel: str) -> dict[int, dict[str, Any]]:
        return {row["architecture"]: row | row["loop"] for row in kernels if row["kernel"] == kernel}

    rows = rows_of("fp16, resident, both means")
    quantities = {
        "registers": "registers",
        "shared": "shared memory, bytes",
        "blocks_per_sm": "blocks on a multiprocessor",
        "tensor_core": "`mma` of a tile and warp",
        "issue_slots": "instructions of a tile and warp",
    }
    shown = (75, 80, 87, 90, 100, 120)
    lines = [(title, *(rows[number][key] for number in shown)) for key, title in quantities.items()]
    # Rows of 128 channels of 32 bits are streamed, in eight chunks of 16 channels and tiles of twice as many positions.
    slots: dict[str, dict[int, int]] = {}
    for dtype in ("tf32", "fp32"):
        streamed = rows_of(f"{dtype}, streamed, both means")
        slots[dtype] = {number: row["issue_slots"] * 8 // 2 for number, row in streamed.items()}
        lines.append((f"the same product in {dtype}", *(slots[dtype].get(number, "-") for number in shown)))
    orin, products = slots["fp32"][87], 32 * 32 * 128 // 32
    return (
        f"{markdown_of(('', *(f'sm_{number}' for number in shown)), lines)}\n\n"
        "Rows of 128 channels in tf32 and fp32 are streamed; what is done once a tile is not among their instructions. "
        f"fp32 takes {orin / slots['tf32'][87]:.1f} times as many as tf32 on sm_87: no tensor core takes part, so that "
        f"{products} of its {orin} instructions are multiplications ({products / orin:.0%})."
    )


def balance(multiprocessors: int, stages: Sequence[Sequence[int]]) -> float:
    """The mean sum of tiles per multiprocessor over the largest, for pairs and positions of the maps of one launch.

    As count_workers and first_tile_of in runtime/native/cuda/plan.h share out the tiles of 128 channels of fp16; blocks
    are dealt out in turn. A test holds the numbers against theirs.
    """
    tiles = sum(pairs * -(-side // 128) * -(-side // 32) for pairs, side in stages)
    workers = min(tiles, multiprocessors * min(3, max(1, tiles // (4 * multiprocessors))))
    sums = [0] * multiprocessors
    for worker in range(workers):
        sums[worker % multiprocessors] += (worker + 1) * tiles // workers - worker * tiles // workers
    return tiles / multiprocessors / max(sums)


def change_table(before_path: Path, after_path: Path) -> str:
    """Instructions of a warp's tile, and the balance over multiprocessors, before and after the last change."""
    before = json.loads(before_path.read_text(encoding="utf-8"))
    kernels = json.loads(after_path.read_text(encoding="utf-8"))["kernels"]
    lines: list[tuple[str, str, str]] = []
    for architecture, counts in before["issue_slots"].items():
        for output, slots in counts.items():
            name = f"fp16, resident, {output}"
            (now,) = (row for row in kernels if (row["architecture"], row["kernel"]) == (int(architecture), name))
            lines.append(
                (f"instructions of a tile and warp, sm_{architecture}, {output}", slots, now["loop"]["issue_slots"])
            )
    for case in before["balance"]:
        shapes = " + ".join(f"{pairs} x {positions}" for pairs, positions in case["stages"])
        share = "-" if case["before"] is None else f"{case['before']:.2f}"
        now = balance(case["multiprocessors"], case["stages"])
        lines.append((f"balance, {case['device']}, {shapes} positions", share, f"{now:.2f}"))
    return markdown_of(("", f"commit {before['commit']}", "now"), lines)


@command
def main(
    architecture: Annotated[
        list[int] | None, typer.Option(help="Only this one, as 87; may be repeated. Shown, not written.")
    ] = None,
    sources: Annotated[Path | None, typer.Option(help="A folder of other sources than the project's.")] = None,
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
            rows += inspect(item, Path(folder), sources)
    for row in rows:
        typer.echo(json.dumps(row))
    if architecture is None and sources is None:
        head = {"command": "python -m tools.kernels", "nvcc": nvcc_version(), "sources_sha256": source_digest()}
        # One line per kernel, so that a change of a kernel shows as a change of its lines.
        lines = ",\n".join("  " + json.dumps(row) for row in rows)
        with atomic_file(output) as temporary:
            temporary.write_text(json.dumps(head, indent=1)[:-2] + f',\n "kernels": [\n{lines}\n ]\n}}\n')
        typer.echo(f"written to {output}", err=True)
