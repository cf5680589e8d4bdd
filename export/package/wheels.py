"""The wheels of a device package: our own, and those of the pinned packages where a folder holds them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

import avsbg
from avsbg.export.package.targets import BUILD_REQUIREMENTS, PackageError, Target

# The first moment that a zip archive can name, as a wheel's files get it.
_EPOCH = "315532800"


def read_pins(target: Target) -> dict[str, str]:
    """The pinned packages, name -> version: those that are installed, and those that pycuda is built with."""
    lines = [line for file in (target.requirements, BUILD_REQUIREMENTS) for line in file.read_text("utf-8").split()]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def download_command(target: Target, folder: str) -> str:
    """The command that fills a folder with the pinned packages for the target, on any machine with a network."""
    python = target.python.replace(".", "")
    platforms = " ".join(f"--platform {platform}" for platform in target.platforms)
    pins = " ".join(f"{name}=={version}" for name, version in read_pins(target).items() if name != "pycuda")
    wheels = (
        f"pip download --no-deps --only-binary :all: --implementation cp --python-version {python} {platforms} "
        f"-d {folder} {pins}"
    )
    return f"{wheels} && pip download --no-deps --no-binary :all: -d {folder} pycuda=={read_pins(target)['pycuda']}"


def choose_wheels(folder: Path, target: Target) -> dict[str, Path]:
    """The files of `folder` for the pinned packages, by package; packages that it lacks are left out.

    Raises:
        PackageError: there is no such folder, or it has a package that is pinned only for another version or machine.
    """
    if not folder.is_dir():
        raise PackageError(f"{folder} is not a folder of wheels.", f"Fill one: {download_command(target, str(folder))}")
    tags = _tags(target)
    found: dict[str, Path] = {}
    refused: dict[str, str] = {}
    pins = read_pins(target)
    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".whl":
                package, version, _, wheel_tags = parse_wheel_filename(file.name)
                fits = bool(wheel_tags & tags)
            else:
                package, version = parse_sdist_filename(file.name)
                fits = True
        except (InvalidWheelFilename, InvalidSdistFilename):
            continue
        name = str(package)
        if name not in pins:
            continue
        if fits and str(version) == pins[name]:
            found[name] = file
        else:
            refused[name] = file.name
    for name in sorted(refused.keys() - found.keys()):
        raise PackageError(
            f"{folder / refused[name]} does not fit {target.name}, which has {name} {pins[name]} for CPython "
            f"{target.python} on {target.architecture}.",
            f"Fill an empty folder: {download_command(target, 'FOLDER')}",
        )
    return found


def _tags(target: Target) -> set[Tag]:
    version = tuple(int(part) for part in target.python.split("."))
    interpreter = f"cp{target.python.replace('.', '')}"
    return {
        *cpython_tags(version, platforms=target.platforms),
        *compatible_tags(version, interpreter, target.platforms),
    }


def build_own_wheel(folder: Path) -> Path:
    """Build the wheel of avsbg without native parts, for any machine, from the checkout that this code runs from.

    A `PackageError` where this is no checkout, or the build fails.
    """
    root = Path(avsbg.__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file() or not (root / "CMakeLists.txt").is_file():
        raise PackageError(
            "this avsbg was installed from a wheel, and a package needs that wheel.",
            f"Give it with --wheel FILE: pip download --no-deps avsbg=={avsbg.__version__}",
        )
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "-C", "wheel.cmake=false", "-w", str(folder), str(root)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    wheels = list(folder.glob("avsbg-*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = (done.stderr or done.stdout).strip().splitlines()
        hint = "pip install scikit-build-core, or give a wheel with --wheel FILE."
        raise PackageError(f"the wheel of avsbg could not be built: {lines[-1] if lines else 'pip says nothing'}", hint)
    return wheels[0]
