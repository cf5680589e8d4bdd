"""Device packages made from bundles: `avsbg package`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import avsbg
from avsbg.atomic import atomic_file
from avsbg.export.package.archive import write_archive
from avsbg.export.package.libraries import PLUGIN, collect_libraries, collect_native_runtime, collect_sources
from avsbg.export.package.targets import DEVICE_FILES, PackageError, Target, find_target
from avsbg.export.package.wheels import build_own_wheel, choose_wheels, read_pins
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.precision import PRECISIONS, validate_rest
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.bundle.writer import copy_bundle

Runtime = Literal["python", "native", "both"]
# The digest of a base image: the builder of the container fills in that of the image that was checked.
DIGEST = "sha256:DIGEST"


@dataclass(frozen=True)
class PackageRequest:
    """A package as it was asked for.

    Attributes:
        target: a name of `TARGETS`.
        runtime: what executes the bundle on the device.
        precisions: of the engines that the device builds; the first is what install.sh builds by default.
        wheel: of avsbg; None builds one from the checkout.
        wheels: a folder with the pinned packages; None leaves them to the device's network.
        libraries: a folder of compiled native libraries; None packs their sources.
        native: the prefix that the C++ runtime was installed to.
        video: what the benchmark decodes where it starts from a video.
        rest: the type of what int8 and fp8 engines do not quantise, fp16 or fp32; None for fp32, as of `avsbg build`.
    """

    target: str
    runtime: Runtime = "python"
    precisions: tuple[str, ...] = ("fp16",)
    wheel: Path | None = None
    wheels: Path | None = None
    libraries: Path | None = None
    native: Path | None = None
    video: Path | None = None
    rest: Precision | None = None


@dataclass
class _Contents:
    """Files by their names in the package, and what PACKAGE.json says of them."""

    files: dict[str, Path] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def make_package(
    bundle: Bundle, request: PackageRequest, output: Path, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Write a device package of `bundle` to `output`, and return what its PACKAGE.json says.

    Raises:
        PackageError: the target, the runtime, a precision or the rest is unknown, a part does not fit the target, or
            `output` has another ending than .tar.zst.
    """
    target = find_target(request.target)
    if request.runtime not in get_args(Runtime):
        raise PackageError(f"there is no runtime {request.runtime!r}.", f"There are: {', '.join(get_args(Runtime))}.")
    if not output.name.endswith(".tar.zst"):
        raise PackageError(f"{output} does not end in .tar.zst, which a device package is.")
    graphs = choose_graphs(bundle, request.precisions, request.rest)
    with tempfile.TemporaryDirectory(prefix="avsbg-package-") as temporary:
        folder = Path(temporary)
        contents = _Contents()
        if request.runtime != "python":
            contents.files.update(collect_native_runtime(request.native, target))
        libraries = {} if request.libraries is None else collect_libraries(request.libraries, target)
        if request.runtime == "native":
            _add_opened_libraries(contents, libraries)
        else:
            _add_python(contents, request, target, folder, report)
            contents.files.update(libraries or collect_sources())
        contents.facts["plugin"] = "compiled" if libraries or request.runtime == "native" else "sources"
        report("copying the bundle")
        copy = copy_bundle(bundle, folder / "bundle", graphs=graphs)
        contents.files.update({f"bundle/{name}": copy.path / name for name in (*copy.manifest.files, "manifest.json")})
        _add_scripts(contents, request, target, copy, folder)
        facts = _describe(contents, request, target, copy)
        _add_records(contents, facts, folder)
        name = f"avsbg-{bundle.manifest.name}-{target.name}"
        executable = {one for one in contents.files if one.endswith(".sh") or one.startswith("native/bin/")}
        report("writing the archive")
        with atomic_file(output) as file:
            write_archive(file, name, contents.files, frozenset(executable))
    return {**facts, "folder": name}


def choose_graphs(bundle: Bundle, precisions: tuple[str, ...], rest: Precision | None = None) -> list[str]:
    """The graphs that a device needs to build engines of these precisions and to verify them.

    Those in fp32, from which fp16, bf16 and tf32 engines are built, and those in the precisions themselves, with every
    rest. A `PackageError` for an unknown precision, a rest that none of them has, or a quantised precision without the
    graph or the calibration that its engine is built from.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise PackageError(f"there is no precision {precision!r}.", f"There are: {', '.join(PRECISIONS)}.")
    # Of several precisions, the rest is of those that have one.
    quantized = _quantized(precisions)
    for precision in quantized or precisions[:1]:
        if problem := validate_rest(precision, rest):
            raise PackageError(problem, "Leave --rest out, or add --precision int8.")
    graphs = bundle.manifest.graphs
    for precision in quantized:
        # With a rest of fp16, the device makes the graph from the calibration, as `avsbg build` does anywhere.
        of_fp32 = any(graph.precision == precision and graph.rest is None for graph in graphs.values())
        if precision not in bundle.manifest.quantisations or (rest in (None, "fp32") and not of_fp32):
            raise PackageError(
                f"{bundle.path} has no graph in {precision}, which needs calibration.",
                f"avsbg quantize {bundle.path} --precision {precision} --calibrate VIDEOS",
            )
    kept = {"fp32", *precisions}
    return [name for name, graph in graphs.items() if graph.precision in kept]


def _quantized(precisions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in precisions if PRECISIONS[name].quantization is not None)


def _add_opened_libraries(contents: _Contents, libraries: Mapping[str, Path]) -> None:
    """Add what the backends of the C++ runtime open beside themselves, unless it was installed with them."""
    for file in libraries.values():
        if file.suffix == ".so":
            contents.files.setdefault(f"native/lib/{file.name}", file)
    if f"native/lib/{PLUGIN}" not in contents.files:
        raise PackageError(
            f"the native runtime has no {PLUGIN}, the plugin that its backend for TensorRT opens.",
            "Build it for the target (docs/plugin.md), and give its folder with --libraries DIR.",
        )


def _add_python(
    contents: _Contents, request: PackageRequest, target: Target, folder: Path, report: Callable[[str], None]
) -> None:
    wheel = request.wheel
    if wheel is None:
        report("building the wheel of avsbg")
        wheel = build_own_wheel(folder)
    elif not wheel.is_file():
        raise PackageError(f"{wheel} is not a file.", "Give avsbg's wheel, or leave --wheel out in a checkout.")
    chosen = {} if request.wheels is None else choose_wheels(request.wheels, target)
    contents.files.update({f"python/wheels/{file.name}": file for file in (wheel, *chosen.values())})
    contents.files["python/requirements.txt"] = target.requirements
    pins = read_pins(target)
    lacking = sorted(pins.keys() - chosen.keys())
    contents.facts["python"] = {"version": target.python, "requirements": pins, "not_in_package": lacking}


def _add_scripts(contents: _Contents, request: PackageRequest, target: Target, bundle: Bundle, folder: Path) -> None:
    """Add the scripts, the unit and the container file; what differs between packages is in settings.env."""
    manifest = bundle.manifest
    in_memory = manifest.clip.audio in ("audio_embedding", "spectrogram") or not manifest.uses_audio
    settings = {
        "TARGET": target.name,
        "ARCHITECTURE": target.architecture,
        "PYTHON_VERSION": target.python,
        "JETSON_LINUX": target.jetson_linux or "",
        "RUNTIME": request.runtime,
        "PRECISIONS": " ".join(request.precisions),
        "PRECISION": request.precisions[0],
        "QUANTIZED": " ".join(_quantized(request.precisions)),  # of the precisions, those that have a rest
        "REST": request.rest or "fp32",
        "SCOPE": "model" if in_memory else "end-to-end",  # of `avsbg bench`
    }
    lines = "".join(f"{name}='{value}'\n" for name, value in settings.items())
    (folder / "settings.env").write_text(f"# Sourced by the scripts beside it.\n{lines}", encoding="utf-8")
    contents.files["settings.env"] = folder / "settings.env"
    for name in ("install.sh", "uninstall.sh", "avsbg-live.service", "README.md"):
        contents.files[name] = DEVICE_FILES / name
    if request.video is not None:
        if not request.video.is_file():
            raise PackageError(f"{request.video} is not a file.", "Give the video that the benchmark decodes.")
        contents.files[f"benchmark{request.video.suffix}"] = request.video
    if target.base_image is not None:
        first = request.precisions[0]
        rest = request.rest if _quantized((first,)) else None
        (folder / "Dockerfile").write_text(container_file(target, first, rest), encoding="utf-8")
        contents.files["Dockerfile"] = folder / "Dockerfile"


def container_file(target: Target, precision: str, rest: str | None = None) -> str:
    """The container file for a Jetson: the base image by a digest that its builder fills in, and this package."""
    text = (DEVICE_FILES / "Dockerfile").read_text(encoding="utf-8")
    values = {
        "BASE_IMAGE": str(target.base_image),
        "BASE_DIGEST": DIGEST,
        "JETSON_LINUX": str(target.jetson_linux),
        "PRECISION": f"{precision} --rest {rest}" if rest else precision,
        "CAPABILITIES": ";".join(map(str, target.capabilities)),
    }
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _describe(contents: _Contents, request: PackageRequest, target: Target, bundle: Bundle) -> dict[str, Any]:
    return {
        "format": 1,
        "avsbg": avsbg.__version__,
        "target": target.name,
        "architecture": target.architecture,
        "runtime": request.runtime,
        "precisions": list(request.precisions),
        "rest": request.rest or "fp32",
        "brought_by_the_system": target.system,
        "bundle": {
            "name": bundle.manifest.name,
            "graphs": sorted(bundle.manifest.graphs),
            "manifest_sha256": bundle.manifest_sha256,
        },
        **contents.facts,
    }


def _add_records(contents: _Contents, facts: dict[str, Any], folder: Path) -> None:
    (folder / "PACKAGE.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    contents.files["PACKAGE.json"] = folder / "PACKAGE.json"
    lines = "".join(f"{sha256(file)}  {name}\n" for name, file in sorted(contents.files.items()))
    (folder / "SHA256SUMS").write_text(lines, encoding="utf-8")
    contents.files["SHA256SUMS"] = folder / "SHA256SUMS"
