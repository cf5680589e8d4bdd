"""The machines that packages are made for: their processor, Python and what their own system brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avsbg.errors import AvsbgError

DEVICE_FILES = Path(__file__).parent / "device"
# pycuda has no wheels: the device builds it.
BUILD_REQUIREMENTS = DEVICE_FILES / "requirements/build.txt"


class PackageError(AvsbgError):
    """A device package cannot be made as it was asked for."""


@dataclass(frozen=True)
class Target:
    """A kind of machine.

    `system` names the parts that the machine's own system brings and no package may, with their versions, as NVIDIA
    lists them in the release notes of JetPack 6.2 (docs.nvidia.com/jetson/archives/jetpack-archived/jetpack-62) and of
    JetPack 7.0 (docs.nvidia.com/jetson/archives/jetpack-archived/jetpack-70).
    """

    name: str
    architecture: str  # as `uname -m` says
    python: str  # the version of the system's Python, for which wheels are chosen
    glibc: tuple[int, int]
    capabilities: tuple[int, ...]  # of the GPUs, 87 for 8.7
    system: dict[str, str]
    jetson_linux: str | None = None  # the release that /etc/nv_tegra_release must begin with
    base_image: str | None = None  # of a container, without its digest

    @property
    def requirements(self) -> Path:
        """The pinned packages of Python, resolved by pip for this target."""
        return DEVICE_FILES / "requirements" / f"{self.name}.txt"

    @property
    def platforms(self) -> list[str]:
        """The platforms whose wheels run there, the newest first."""
        major, minor = self.glibc
        return [f"manylinux_{major}_{step}_{self.architecture}" for step in range(minor, 16, -1)] + [
            *(f"manylinux2014_{self.architecture}", f"linux_{self.architecture}"),
        ]


_JETPACK6 = Target(
    name="jetpack6",
    architecture="aarch64",
    python="3.10",
    glibc=(2, 35),
    capabilities=(87,),
    system={"Jetson Linux": "36.4", "CUDA": "12.6", "TensorRT": "10.3", "cuDNN": "9.3", "Ubuntu": "22.04"},
    jetson_linux="R36",
    base_image="nvcr.io/nvidia/l4t-jetpack:r36.4.0",
)
_JETPACK7 = Target(
    name="jetpack7",
    architecture="aarch64",
    python="3.12",
    glibc=(2, 39),
    capabilities=(87, 110),
    system={"Jetson Linux": "38.2", "CUDA": "13.0", "TensorRT": "10.13", "cuDNN": "9.12", "Ubuntu": "24.04"},
    jetson_linux="R38",
    base_image="nvcr.io/nvidia/l4t-jetpack:r38.2.0",
)
_DESKTOP = Target(
    name="x86_64-cuda13",
    architecture="x86_64",
    python="3.12",
    glibc=(2, 36),
    capabilities=(75, 80, 86, 89, 90, 100, 120),
    system={"CUDA": "13.0", "TensorRT": "10.13", "driver": "580"},
)
TARGETS = {target.name: target for target in (_JETPACK6, _JETPACK7, _DESKTOP)}


def find_target(name: str) -> Target:
    """The target of that name; a `PackageError` that lists them if there is none."""
    if name not in TARGETS:
        raise PackageError(f"no device package is made for {name!r}.", f"There are: {', '.join(TARGETS)}.")
    return TARGETS[name]
