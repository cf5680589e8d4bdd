"""Native parts of a device package: compiled ones, checked for the target's processor and GPU, or the sources."""

from __future__ import annotations

import json
from pathlib import Path

import avsbg
from avsbg.export.package.targets import PackageError, Target

# e_machine of an ELF file (elf.h): EM_X86_64, EM_AARCH64.
_MACHINES = {"x86_64": 62, "aarch64": 183}
# Of the checkout, what scripts/build-on-device.sh needs.
_SOURCES = (
    *("CMakeLists.txt", "LICENSE", "NOTICE", "scripts/build-on-device.sh"),
    *("cmake", "runtime/native", "tests/native/plugin", "third_party"),
)
# The command of the C++ runtime, its library, and the backends that this opens.
_NATIVE_RUNTIME = (
    *("bin/avsbg-run", "lib/libavsbg.so.1"),
    *("lib/libavsbg_backend_onnxruntime.so", "lib/libavsbg_backend_tensorrt.so"),
)
PLUGIN = "libavsbg_tensorrt.so"


def find_machine(file: Path) -> str | None:
    """The processor that an ELF file is for, as `uname -m` says; None of any other file."""
    with file.open("rb") as stream:
        head = stream.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return None
    number = int.from_bytes(head[18:20], "little")
    return next((name for name, machine in _MACHINES.items() if machine == number), f"machine {number}")


def collect_libraries(folder: Path, target: Target) -> dict[str, Path]:
    """The compiled native libraries of `folder`, by their names in the package.

    Args:
        folder: a `runtime/lib` as CMake installs it, of `scripts/cross-build-jetson.sh` for instance.
        target: what they must be compiled for.

    Raises:
        PackageError: there is no TensorRT plugin, or one of them is for another processor, or the plugin holds no code
            for a GPU of the target.
    """
    record = folder / "native.json"
    if not record.is_file():
        hint = "It is the runtime/lib of a build: scripts/cross-build-jetson.sh makes dist/jetson/runtime/lib."
        raise PackageError(f"{folder} holds no native.json, so it is no folder of native libraries.", hint)
    built = json.loads(record.read_text(encoding="utf-8"))["built"]
    if "tensorrt" not in built:
        raise PackageError(
            f"{folder} holds no TensorRT plugin.", "Leave --libraries out: the device builds the plugin."
        )
    files = sorted(file for file in folder.iterdir() if file.is_file())
    _check_machines(files, target)
    codes = {int(text) for text in built["tensorrt"].get("architectures", "").split() if text.isdecimal()}
    if missing := [capability for capability in target.capabilities if capability not in codes]:
        raise PackageError(
            f"the plugin in {folder} holds no code for compute capability {missing[0] / 10:g} of {target.name}, but "
            f"for {', '.join(f'{code / 10:g}' for code in sorted(codes))}.",
            "Leave --libraries out: the device builds the plugin for its own GPU.",
        )
    return {f"libraries/{file.name}": file for file in files}


def collect_sources() -> dict[str, Path]:
    """The sources of the native libraries and the script that builds them on the device, by their names in the package.

    A `PackageError` where this code does not run from a checkout.
    """
    root = Path(avsbg.__file__).resolve().parents[1]
    if not (root / "scripts/build-on-device.sh").is_file():
        raise PackageError(
            "this avsbg was installed from a wheel, which has no sources of the plugin.",
            "Give compiled libraries with --libraries DIR, or make the package from a checkout.",
        )
    found: dict[str, Path] = {}
    for name in _SOURCES:
        path = root / name
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        found.update({f"source/{file.relative_to(root).as_posix()}": file for file in files})
    return {name: file for name, file in found.items() if "__pycache__" not in name}


def collect_native_runtime(folder: Path | None, target: Target) -> dict[str, Path]:
    """The C++ runtime of `folder`, a prefix that it was installed to, by the names in the package.

    A `PackageError` where the command, its library or a backend is missing, or one is for another processor.
    """
    build = (
        f"For {target.architecture}: cmake --install BUILD --component sdk --prefix DIR; see docs/native-runtime.md."
    )
    if folder is None:
        raise PackageError("a package with the native runtime needs its compiled files: --native DIR.", build)
    if missing := [name for name in _NATIVE_RUNTIME if not (folder / name).is_file()]:
        raise PackageError(f"{folder} holds no {missing[0]}, so it is no installed native runtime.", build)
    files = [file for part in ("bin", "lib") for file in sorted((folder / part).rglob("*")) if file.is_file()]
    _check_machines(files, target)
    return {f"native/{file.relative_to(folder).as_posix()}": file for file in files}


def _check_machines(files: list[Path], target: Target) -> None:
    for file in files:
        machine = find_machine(file)
        if machine not in (None, target.architecture):
            raise PackageError(f"{file} is compiled for {machine}; {target.name} is {target.architecture}.")
