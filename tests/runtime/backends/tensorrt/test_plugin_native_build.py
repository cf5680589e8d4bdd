"""The plugin as a binary: what it exports and needs, its C++ test, and the build for Jetson under emulation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from avsbg.native_library import NativeLibraryError, native_library
from fixtures import ROOT

CROSS_TOOLS = ("aarch64-linux-gnu-g++", "qemu-aarch64", "cmake", "ninja")
# The C library and the compiler's libraries of Ubuntu 22.04, on which JetPack 6 is built.
OLDEST = {"GLIBC": (2, 35), "GLIBCXX": (3, 4, 30), "CXXABI": (1, 3, 13), "GCC": (12,)}


def run(*command: str | Path, **environment: str) -> str:
    process = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout[-4000:] + process.stderr[-4000:]
    return process.stdout


def needs(*commands: str) -> None:
    if missing := [command for command in commands if shutil.which(command) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def plugin() -> Path:
    try:
        return native_library("tensorrt").path
    except NativeLibraryError as error:
        pytest.skip(str(error))


def exports(library: Path, nm: str = "nm") -> set[str]:
    symbols = [line.split() for line in run(nm, "--dynamic", "--defined-only", library).splitlines()]
    return {fields[-1] for fields in symbols if fields[-2] != "A"}


def newest_versions(library: Path, objdump: str = "objdump") -> dict[str, tuple[int, ...]]:
    """The newest version of each system library's symbols that a library asks for."""
    newest: dict[str, tuple[int, ...]] = {}
    for name, text in re.findall(r"\b([A-Z]+)_(\d+(?:\.\d+)+)\b", run(objdump, "--dynamic-syms", library)):
        version = tuple(int(part) for part in text.split("."))
        newest[name] = max(version, newest.get(name, ()))
    return newest


def test_only_the_two_functions_that_tensorrt_looks_for_are_exported(plugin):
    needs("nm")
    assert exports(plugin) == {"getCreators", "setLoggerFinder"}


def test_no_library_of_tensorrt_or_cuda_is_needed(plugin):
    needs("readelf")
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "--dynamic", plugin)))
    assert needed
    assert not [name for name in needed if re.search(r"nvinfer|tensorrt|cuda|cudart", name)]


@pytest.mark.slow
@pytest.mark.native
def test_plugin_builds_without_warnings_and_passes_its_cpp_test(plugin, tmp_path):
    """The script that builds on a device, here for the architecture with the fewest kernels; others are built below."""
    needs("cmake", "ninja", "g++")
    # All files of a target at once, as in `fixtures.libavsbg`; `make native` compiles each alone, optimised.
    quick = ("-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=0", "-DCMAKE_CXX_FLAGS_RELEASE=-O1")
    # libavsbg needs a JSON library that is not found then; it has builds of its own (`fixtures.libavsbg`).
    options = ("-G", "Ninja", "-DAVSBG_WARNINGS_AS_ERRORS=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON", *quick)
    output = run("scripts/build-on-device.sh", tmp_path, *options, AVSBG_CUDA_ARCHITECTURES="75")
    assert "100% tests passed, 0 tests failed out of 5" in output
    assert (tmp_path / "runtime/lib/libavsbg_tensorrt.so").is_file()
    kernels = exports(tmp_path / "runtime/lib/libavsbg_cuda.so")
    assert len(kernels) == 9 and all(name.startswith("avsbg_cuda_") for name in kernels)


@pytest.mark.slow
@pytest.mark.native
def test_jetson_build_answers_under_emulation(plugin, tmp_path):
    """Cross-built for Orin and Thor; the C++ test runs in it under qemu, and JetPack's system libraries suffice."""
    command = ["scripts/cross-build-jetson.sh"]
    if missing := [tool for tool in CROSS_TOOLS if shutil.which(tool) is None]:
        # Installing is for machines that are there to test, not for a developer's own.
        if os.environ.get("CI") != "true" or os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.skip(f"not installed: {', '.join(missing)} (scripts/cross-build-jetson.sh --install-packages)")
        command.append("--install-packages")
    output = run(*command, tmp_path)
    assert "100% tests passed, 0 tests failed out of 4" in output
    library = tmp_path / "runtime/lib/libavsbg_tensorrt.so"
    assert exports(library, "aarch64-linux-gnu-nm") == {"getCreators", "setLoggerFinder"}
    for built in library.parent.glob("*.so"):
        newest = newest_versions(built, "aarch64-linux-gnu-objdump")
        assert not {name: version for name, version in newest.items() if version > OLDEST[name]}, built
    assert '"architectures": "87 110"' in (library.parent / "native.json").read_text()
