"""Instructions of the CPU operator by path, counted by callgrind: independent of system load."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from avsbg.benchmarks.errors import BenchmarkError

SOURCES = Path(__file__).resolve().parents[2] / "runtime" / "native" / "onnxruntime"
PROGRAM = Path(__file__).with_name("operator_instructions.cpp")
# The paths that valgrind can run (it knows no AVX-512), with what each is compiled with beside `FLAGS`.
PATHS = {"portable": (), "avx2": ("-mavx2", "-mfma")}
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-Wno-psabi")  # as runtime/native/onnxruntime/CMakeLists.txt has them
# Pairs, positions and channels: stage 2 of a network of 224 x 224, and one that fills no tile.
SHAPES = (("1", "196", "128"), ("2", "61", "37"))
_INSTALL = "On Debian and Ubuntu: apt-get install valgrind g++"


def missing_tools() -> list[str]:
    """The programs that counting needs and that are not installed."""
    return [tool for tool in ("valgrind", "g++") if shutil.which(tool) is None]


def compiler() -> str:
    """The compiler and the processor family, by which instructions differ."""
    return f"g++ {_run(('g++', '-dumpfullversion')).strip()}, {platform.machine()}"


def count_instructions() -> dict[str, int]:
    """Instructions of one call of `mean_correlation` on one thread by path and shape; needs valgrind, g++, x86_64."""
    if missing := missing_tools():
        raise BenchmarkError(f"instructions cannot be counted: not installed: {', '.join(missing)}.", _INSTALL)
    if platform.machine() != "x86_64":
        message = f"the counted paths are those of x86_64, this is {platform.machine()}."
        raise BenchmarkError(message, "Count elsewhere.")
    with tempfile.TemporaryDirectory() as folder:
        program = _build(Path(folder))
        return {
            f"{path} path, {' x '.join(shape)}, instructions": _count(program, (path, *shape), Path(folder))
            for path in PATHS
            for shape in SHAPES
        }


def _build(folder: Path) -> Path:
    sources = {SOURCES / f"path_{path}.cpp": flags for path, flags in PATHS.items()}
    sources |= {SOURCES / "correlation.cpp": (), PROGRAM: (f"-I{SOURCES}",)}
    objects = []
    for source, flags in sources.items():
        objects.append(str(folder / f"{source.stem}.o"))
        _run(("g++", *FLAGS, *flags, "-c", str(source), "-o", objects[-1]))
    program = folder / "operator_instructions"
    _run(("g++", *objects, "-o", str(program)))
    return program


def _count(program: Path, arguments: Sequence[str], folder: Path) -> int:
    written = folder / "callgrind.out"
    collect = "--toggle-collect=avsbg::cpu::mean_correlation*"
    _run(("valgrind", "--tool=callgrind", f"--callgrind-out-file={written}", collect, str(program), *arguments))
    found = re.search(r"^(?:summary|totals): (\d+)", written.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if found is None or not int(found[1]):
        raise BenchmarkError("callgrind counted nothing: mean_correlation was not called by that name.", str(program))
    return int(found[1])


def _run(command: Sequence[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BenchmarkError(f"{command[0]} is not installed.", _INSTALL) from error
    if result.returncode:
        raise BenchmarkError(f"{command[0]} failed: {result.stderr.strip()[-2000:]}", " ".join(command))
    return result.stdout
