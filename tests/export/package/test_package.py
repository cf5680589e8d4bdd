"""Contents of device packages: what a device needs and nothing else, the same byte for byte, or an error in words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tarfile
from pathlib import Path

import pytest
import zstandard
from packaging.requirements import Requirement

from avsbg.export.package.libraries import find_machine
from avsbg.export.package.package import PackageRequest, make_package
from avsbg.export.package.targets import TARGETS, PackageError
from avsbg.export.package.wheels import build_own_wheel, choose_wheels, download_command, read_pins
from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from fixtures.cli import run_avsbg
from fixtures.engines import add_engine


def members(file: Path) -> dict[str, tuple[int, bytes]]:
    """The files of a package: name -> mode and content."""
    with (
        file.open("rb") as raw,
        zstandard.ZstdDecompressor().stream_reader(raw) as packed,
        tarfile.open(fileobj=packed, mode="r|") as archive,
    ):
        found = {}
        for entry in archive:
            content = archive.extractfile(entry)
            assert content is not None and (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)
            found[entry.name.partition("/")[2]] = (entry.mode, content.read())
        return found


def test_holds_what_a_device_needs_and_nothing_else(bundle_copy: Path, some_wheel: Path, tmp_path: Path) -> None:
    bundle = add_engine(bundle_copy, "elsewhere")
    output = tmp_path / "tiny.tar.zst"
    facts = make_package(bundle, PackageRequest("jetpack6", wheel=some_wheel), output)
    found = members(output)
    parts = {name.partition("/")[0] for name in found}
    scripts = {"install.sh", "uninstall.sh", "settings.env", "avsbg-live.service", "Dockerfile", "README.md"}
    assert parts == {"bundle", "python", "source", "PACKAGE.json", "SHA256SUMS", *scripts}
    manifest = json.loads(found["bundle/manifest.json"][1])
    assert manifest["engines"] == {} and set(manifest["graphs"]) == {"clip", "clip.plain"}
    assert {f"bundle/{name}" for name in manifest["files"]} == {
        name for name in found if name.startswith("bundle/") and name != "bundle/manifest.json"
    }
    assert [name for name in found if "engines" in name] == []
    assert found["install.sh"][0] == found["source/scripts/build-on-device.sh"][0] == 0o755
    assert found["settings.env"][0] == 0o644
    for line in found["SHA256SUMS"][1].decode().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256(found[name][1]).hexdigest() == digest
    assert facts["brought_by_the_system"]["TensorRT"] == "10.3"
    assert facts["python"]["requirements"]["numpy"] == "2.2.6" and "numpy" in facts["python"]["not_in_package"]


def test_is_the_same_byte_for_byte_wherever_and_whenever_it_is_made(
    tiny: Bundle, some_wheel: Path, tmp_path: Path
) -> None:
    first = run_avsbg("package", tiny.path, "--target", "jetpack7", "-o", tmp_path / "a.tar.zst", "--wheel", some_wheel)
    assert first.code == 0 and "TensorRT 10.13" in first.text, first.output
    os.utime(some_wheel, (1, 1))
    some_wheel.chmod(0o600)
    again = ["package", tiny.path, "--target", "jetpack7", "-o", tmp_path / "b.tar.zst", "--wheel", some_wheel]
    assert run_avsbg(*again).code == 0
    assert (tmp_path / "a.tar.zst").read_bytes() == (tmp_path / "b.tar.zst").read_bytes()
    refused = run_avsbg(*again)
    assert refused.code == 1 and "exists already" in refused.paragraph and "--overwrite" in refused.paragraph


@pytest.mark.slow
def test_the_wheel_of_avsbg_is_the_same_byte_for_byte(own_wheel: Path, tmp_path: Path) -> None:
    again = build_own_wheel(tmp_path)
    assert again.name == own_wheel.name == f"avsbg-{own_wheel.name.split('-')[1]}-py3-none-any.whl"
    assert again.read_bytes() == own_wheel.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"target": "jetpack5"}, "'jetpack5'", "jetpack6, jetpack7, x86_64-cuda13"),
        ({"precisions": ("fp17",)}, "'fp17'", "fp16"),
        ({"precisions": ("int8",)}, "no graph in int8", "avsbg quantize"),
        ({"precisions": ("int8",), "rest": "fp16"}, "no graph in int8", "avsbg quantize"),
        ({"rest": "fp16"}, "--rest fp16 cannot be combined with --precision fp16", "--precision int8"),
        ({"precisions": ("fp16", "int8"), "rest": "bf16"}, "--rest bf16 cannot be combined with --precision int8", ""),
        ({"runtime": "native"}, "--native DIR", "cmake --install"),
        ({"wheel": Path("/nowhere.whl")}, "/nowhere.whl is not a file", "--wheel"),
        ({"wheels": Path("/nowhere")}, "/nowhere is not a folder", "pip download"),
        ({"libraries": Path("/nowhere")}, "no native.json", "cross-build-jetson.sh"),
        ({"video": Path("/nowhere.mp4")}, "/nowhere.mp4 is not a file", "benchmark"),
    ],
)
def test_what_cannot_be_packed_is_an_error_that_says_what_to_do(
    tiny: Bundle, some_wheel: Path, tmp_path: Path, changes: dict[str, object], message: str, hint: str
) -> None:
    request = PackageRequest(**{"target": "jetpack6", "wheel": some_wheel, **changes})  # type: ignore[arg-type]
    with pytest.raises(PackageError) as raised:
        make_package(tiny, request, tmp_path / "tiny.tar.zst")
    assert message in raised.value.message and hint in str(raised.value.hint)
    assert not (tmp_path / "tiny.tar.zst").exists()


def test_a_rest_of_fp16_needs_the_calibration_and_one_of_fp32_the_graph(
    calibrated: Bundle, some_wheel: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tiny.tar.zst"
    command = ["package", calibrated.path, "--target", "jetpack6", "--wheel", some_wheel, "--precision", "int8"]
    refused = run_avsbg(*command, "-o", output)
    assert refused.code == 1 and "has no graph in int8" in refused.paragraph
    done = run_avsbg(*command, "--rest", "fp16", "-o", output)
    assert done.code == 0, done.output
    found = members(output)
    assert "REST='fp16'\n" in found["settings.env"][1].decode()
    assert "--precision int8 --rest fp16\n" in found["Dockerfile"][1].decode()
    assert json.loads(found["PACKAGE.json"][1])["rest"] == "fp16"
    assert "int8" in json.loads(found["bundle/manifest.json"][1])["quantisations"]


def test_another_ending_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"does not end in \.tar\.zst"):
        make_package(tiny, PackageRequest("jetpack6"), tmp_path / "tiny.zip")


def test_wheels_are_those_that_the_target_pins(tmp_path: Path) -> None:
    target = TARGETS["jetpack6"]
    fit = [
        "numpy-2.2.6-cp310-cp310-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "rich-15.0.0-py3-none-any.whl",
        "pycuda-2026.1.tar.gz",
    ]
    for name in (*fit, "something_else-1.0-py3-none-any.whl", "notes.txt"):
        (tmp_path / name).touch()
    assert sorted(file.name for file in choose_wheels(tmp_path, target).values()) == sorted(fit)
    (tmp_path / "numpy-2.2.6-cp310-cp310-manylinux_2_17_x86_64.whl").touch()
    assert len(choose_wheels(tmp_path, target)) == 3  # of two, the one that fits
    (tmp_path / fit[0]).unlink()
    with pytest.raises(PackageError, match=r"numpy 2\.2\.6 for CPython 3\.10 on aarch64") as raised:
        choose_wheels(tmp_path, target)
    assert "--platform manylinux_2_35_aarch64" in str(raised.value.hint)


def test_pins_are_what_avsbg_asks_for_and_what_the_tests_run_with() -> None:
    """JetPack 6's Python is 3.10, which some of the newest versions have left."""
    lines = (ROOT / "constraints.txt").read_text().split()
    tested = {name.lower().replace("_", "-"): version for name, _, version in (line.partition("==") for line in lines)}
    text = (ROOT / "pyproject.toml").read_text()
    for name, target in TARGETS.items():
        pins = read_pins(target)
        base = [*_listed(text, "dependencies"), *_listed(text, "build"), *_listed(text, "bench")]
        base += _listed(text, {"jetpack6": "jetson6", "jetpack7": "jetson7"}.get(name, "cuda"))
        for requirement in base:
            assert requirement.name in pins and requirement.specifier.contains(pins[requirement.name]), requirement
        if name != "jetpack6":
            differing = {one: (pins[one], tested[one]) for one in pins.keys() & tested if pins[one] != tested[one]}
            assert not differing, name
        assert "torch" not in pins and f"numpy=={pins['numpy']}" in download_command(target, "wheels")


def _listed(text: str, name: str) -> list[Requirement]:
    section = text.partition(f"\n{name} = [")[2].partition("]")[0]
    return [Requirement(one) for one in re.findall(r'"(.+?)"', section)]


def test_the_native_runtime_brings_what_its_backends_open(tiny: Bundle, tmp_path: Path) -> None:
    prefix, libraries, output = tmp_path / "prefix", tmp_path / "libraries", tmp_path / "tiny.tar.zst"
    request = PackageRequest("x86_64-cuda13", runtime="native", native=prefix)
    parts = ("bin/avsbg-run", "lib/libavsbg.so.1")
    for name in (*parts, "lib/libavsbg_backend_onnxruntime.so", "lib/libavsbg_backend_tensorrt.so"):
        with pytest.raises(PackageError, match=f"holds no {name}"):
            make_package(tiny, request, output)
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).touch()
    with pytest.raises(PackageError, match=r"no libavsbg_tensorrt\.so, the plugin") as raised:
        make_package(tiny, request, output)
    assert "--libraries DIR" in str(raised.value.hint)
    libraries.mkdir()
    for name in ("libavsbg_tensorrt.so", "libavsbg_onnxruntime.so", "libavsbg.so.1"):
        (libraries / name).write_text("of the libraries")
    codes = " ".join(map(str, TARGETS["x86_64-cuda13"].capabilities))
    built = {"tensorrt": {"file": "libavsbg_tensorrt.so", "architectures": codes}}
    (libraries / "native.json").write_text(json.dumps({"built": built, "skipped": {}}))
    assert make_package(tiny, dataclasses.replace(request, libraries=libraries), output)["plugin"] == "compiled"
    found = members(output)
    opened = ("libavsbg_backend_onnxruntime.so", "libavsbg_backend_tensorrt.so", "libavsbg_onnxruntime.so")
    assert {name for name in found if name.startswith("native/lib/")} == {
        f"native/lib/{name}" for name in ("libavsbg.so.1", "libavsbg_tensorrt.so", *opened)
    }
    assert found["native/lib/libavsbg.so.1"][1] == b""  # what was installed goes before


def test_compiled_libraries_are_checked_against_the_target(tiny: Bundle, some_wheel: Path, tmp_path: Path) -> None:
    def elf(machine: int) -> bytes:
        return b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + bytes(40)

    folder = tmp_path / "lib"
    folder.mkdir()
    library = folder / "libavsbg_tensorrt.so"
    library.write_bytes(elf(62))
    assert find_machine(library) == "x86_64" and find_machine(some_wheel) is None
    request = PackageRequest("jetpack7", wheel=some_wheel, libraries=folder)

    def record(architectures: str) -> None:
        built = {"tensorrt": {"file": library.name, "architectures": architectures}}
        (folder / "native.json").write_text(json.dumps({"built": built, "skipped": {}}))

    output = tmp_path / "tiny.tar.zst"
    record("87 110")
    with pytest.raises(PackageError, match="compiled for x86_64; jetpack7 is aarch64"):
        make_package(tiny, request, output)
    library.write_bytes(elf(183))
    record("87")
    with pytest.raises(PackageError, match=r"no code for compute capability 11 of jetpack7, but for 8\.7"):
        make_package(tiny, request, output)
    record("87 110")
    assert make_package(tiny, request, output)["plugin"] == "compiled"
    found = members(output)
    assert "libraries/libavsbg_tensorrt.so" in found and not [name for name in found if name.startswith("source/")]
    (folder / "native.json").write_text(json.dumps({"built": {}, "skipped": {"tensorrt": "no CUDA"}}))
    with pytest.raises(PackageError, match="holds no TensorRT plugin"):
        make_package(tiny, request, output)
