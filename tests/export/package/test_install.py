"""A device package from its file to its removal, in a clean root where stubs of TensorRT and CUDA check the calls."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import dockerfile
import numpy as np
import onnxruntime
import pytest

from avsbg.export.package.package import DIGEST, PackageRequest, container_file, make_package
from avsbg.export.package.targets import DEVICE_FILES, TARGETS
from avsbg.export.package.wheels import read_pins
from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from fixtures.clean_root import CleanRoot, add_tensorrt, make_clean_root
from fixtures.videos import write_video

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def root(tmp_path: Path) -> CleanRoot:
    """A clean root."""
    return make_clean_root(tmp_path / "root")


@pytest.fixture
def this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target x86_64-cuda13 has the Python that runs the tests."""
    target = dataclasses.replace(TARGETS["x86_64-cuda13"], python=HERE)
    monkeypatch.setitem(TARGETS, target.name, target)


def unpack(file: Path, root: CleanRoot) -> Path:
    """Unpack with the system's tar; the folder, as the root sees it."""
    subprocess.run(["tar", "--use-compress-program=zstd", "-xf", file, "-C", root.path / "tmp"], check=True)
    return next((root.path / "tmp").glob("avsbg-*"))


def compiled_libraries(folder: Path, compiler: str) -> Path:
    """A folder of native libraries whose plugin is empty: the stub of TensorRT only sees that it is there."""
    folder.mkdir()
    source = folder.with_suffix(".c")
    source.write_text("int nothing(void) { return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libavsbg_tensorrt.so", source], check=True)
    codes = " ".join(map(str, (87, *TARGETS["x86_64-cuda13"].capabilities)))
    built = {"tensorrt": {"file": "libavsbg_tensorrt.so", "architectures": codes}}
    (folder / "native.json").write_text(json.dumps({"built": built, "skipped": {}}))
    return folder


@pytest.mark.slow
def test_installs_builds_verifies_measures_and_is_removed(
    root: CleanRoot, tiny: Bundle, own_wheel: Path, this_python: None, tmp_path: Path
) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler is not None
    video = write_video(
        tmp_path / "video.mkv", times=[Fraction(k, 5) for k in range(25)], rate=5, sound=np.ones((1, 240000)) / 2
    )
    libraries = compiled_libraries(tmp_path / "libraries", compiler)
    request = PackageRequest("x86_64-cuda13", wheel=own_wheel, libraries=libraries, video=video)
    make_package(tiny, request, tmp_path / "tiny.tar.zst")
    folder = unpack(tmp_path / "tiny.tar.zst", root)
    root.add_python(read_pins(TARGETS["x86_64-cuda13"]))
    add_tensorrt(root, compiler)
    root.add_stub("systemctl")
    there = f"/tmp/{folder.name}"
    address = "rtsp://camera/a?b=1&c=50%25"
    command = [f"{there}/install.sh", "--samples", 2, "--source", address]
    done = root.run(command, LD_LIBRARY_PATH="/stubs/lib")
    assert done.returncode == 0, done.stdout + done.stderr
    report = (root.path / "opt/avsbg/report.txt").read_text()
    titles = [line.removeprefix("== ") for line in report.splitlines() if line.startswith("== ")]
    steps = ["Machine", "Bundle", "Python packages", "Native libraries"]
    assert titles == [*steps, "Doctor", "Engine", "Verification", "Benchmark", "Service"]
    installed = Bundle.open(root.path / "opt/avsbg/bundle").manifest
    (engine,) = installed.engines.values()
    assert (engine.precision, engine.backend, engine.operator) == ("fp16", "tensorrt", "plugin")
    assert "all pass" in report and "tensorrt:plugin:fp16" in report
    assert (root.path / "opt/avsbg/bench/rows.jsonl").is_file()
    assert root.calls() == ["systemctl daemon-reload", "systemctl enable --now avsbg-live.service"]
    unit = root.path / "etc/systemd/system/avsbg-live.service"
    assert '"rtsp://camera/a?b=1&c=50%%25"' in unit.read_text()
    assert "ReadWritePaths=/opt/avsbg/out /opt/avsbg/state\n" in unit.read_text()
    assert (root.path / "opt/avsbg/out").is_dir() and (root.path / "opt/avsbg/state").is_dir()

    again = root.run(command)
    assert again.returncode == 1 and "Remove it first: /opt/avsbg/uninstall.sh" in again.stderr
    gone = root.run(["/opt/avsbg/uninstall.sh"])
    assert gone.returncode == 0, gone.stderr
    assert not (root.path / "opt/avsbg").exists() and not unit.exists()
    assert root.calls()[2:] == ["systemctl disable --now avsbg-live.service", "systemctl daemon-reload"]


def add_jetson(root: CleanRoot, release: str = "# R36 (release), REVISION: 4.3, GCID: 1") -> None:
    """A Jetson with JetPack 6 as its shell sees it: stubs of its programs, and of Python, CMake and nvcc."""
    (root.path / "etc/nv_tegra_release").write_text(f"{release}\n")
    root.add_stub("uname", '[[ $* == -m ]] && echo aarch64 || echo "Linux 5.15.148-tegra aarch64"')
    root.add_stub("nvpmodel", _NVPMODEL)
    root.add_stub("jetson_clocks", '[[ $* != --show ]] || echo "GPU MinFreq=306000000 MaxFreq=1300500000"')
    root.add_stub("systemctl")
    root.add_stub("cmake", _CMAKE)
    root.add_stub("ctest")
    root.add_stub("g++")
    root.add_stub("nvcc", 'echo "release 12.6"')
    root.add_stub("python3.10", _PYTHON)


_NVPMODEL = """case $1 in
  -m) echo "$2" > /tmp/mode ;;
  -q) mode=$(cat /tmp/mode || echo 2); printf 'NV Power Mode: MODE_%s\\n%s\\n' "$mode" "$mode" ;;
esac"""
_CMAKE = """if [[ $1 == --install ]]; then
  mkdir -p "$4/runtime/lib" && touch "$4/runtime/lib/libavsbg_tensorrt.so" "$4/runtime/lib/native.json"
fi"""
# `-m venv` makes a folder whose Python and avsbg are stubs as well.
_PYTHON = """case "$1 $2" in
  "-m venv")
    mkdir -p "$4/bin"
    cp /stubs/bin/python3.10 "$4/bin/python" && cp /stubs/bin/avsbg "$4/bin/avsbg" ;;
  "-c import sys"*) echo 3.10 ;;
  "-c from avsbg"*) echo /opt/avsbg/venv/package ;;
esac"""


def test_without_python_a_video_becomes_masks_with_two_commands(root: CleanRoot, tiny: Bundle, tmp_path: Path) -> None:
    """The C++ runtime alone, in a root that has no Python: install, run."""
    built, capi = ROOT / "runtime/lib", Path(onnxruntime.__file__).parent / "capi"
    libraries = ["libavsbg.so.1", "libavsbg_backend_onnxruntime.so", "libavsbg_onnxruntime.so"]
    libraries += ["libavsbg_backend_tensorrt.so", "libavsbg_tensorrt.so"]
    if missing := [name for name in ("avsbg-run", *libraries) if not (built / name).is_file()]:
        pytest.skip(f"this checkout has no {missing[0]}: make native")
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib").mkdir()
    shutil.copy(built / "avsbg-run", prefix / "bin")
    for name in libraries:
        shutil.copy(built / name, prefix / "lib")
    shutil.copy(next(capi.glob("libonnxruntime.so.1*")), prefix / "lib/libonnxruntime.so.1")
    request = PackageRequest("x86_64-cuda13", runtime="native", native=prefix)
    make_package(tiny, request, tmp_path / "tiny.tar.zst")
    folder = unpack(tmp_path / "tiny.tar.zst", root)
    assert {one.name for one in folder.iterdir()}.isdisjoint({"python", "source", "libraries"})
    root.hide_python()
    assert root.run(["bash", "-c", "python3 -c 1"]).returncode == 126  # cannot be executed
    times = [Fraction(k, 5) for k in range(25)]
    write_video(root.path / "tmp/video.mkv", times=times, rate=5, sound=np.ones((1, 240000)) / 2)
    root.add_stub("systemctl")
    installed = root.run([f"/tmp/{folder.name}/install.sh", "--source", "rtsp://camera/a"])
    assert installed.returncode == 0, installed.stdout + installed.stderr
    unit = (root.path / "etc/systemd/system/avsbg-live.service").read_text()
    assert "exec /opt/avsbg/bin/avsbg-run /opt/avsbg/bundle" in unit
    ran = root.run(["/opt/avsbg/bin/avsbg-run", "/opt/avsbg/bundle", "/tmp/video.mkv", "-o", "/tmp/out"])
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert sorted(one.name for one in (root.path / "tmp/out/masks").iterdir()) == [f"{k:05}.png" for k in range(5)]
    assert "== Verification" in (root.path / "opt/avsbg/report.txt").read_text()


def native_prefix(folder: Path) -> Path:
    """An installed C++ runtime: a command that notes its calls, and empty libraries."""
    for name in ("libavsbg.so.1", "libavsbg_backend_onnxruntime.so", "libavsbg_backend_tensorrt.so"):
        (folder / "lib").mkdir(parents=True, exist_ok=True)
        (folder / "lib" / name).touch()
    (folder / "bin").mkdir()
    (folder / "bin/avsbg-run").write_text('#!/bin/bash\necho "avsbg-run $*" >> /tmp/stubs.log\n')
    return folder


@pytest.fixture
def jetson(root: CleanRoot, calibrated: Bundle, some_wheel: Path, tmp_path: Path) -> CleanRoot:
    """A Jetson in whose /tmp/package an unpacked package for JetPack 6 lies."""
    add_jetson(root)
    root.add_stub("avsbg")
    request = PackageRequest("jetpack6", precisions=("fp16", "int8"), wheel=some_wheel, rest="fp16")
    make_package(calibrated, request, tmp_path / "p.tar.zst")
    unpack(tmp_path / "p.tar.zst", root).rename(root.path / "tmp/package")
    return root


def test_a_jetson_builds_the_plugin_and_measures_in_the_stated_power_mode(jetson: CleanRoot) -> None:
    (jetson.path / "tmp/v.mp4").touch()
    environment = {"AVSBG_CUDA_ARCHITECTURES": "87"}
    options = ["--power-mode", 0, "--fast-clocks", "--video", "/tmp/v.mp4", "--precision", "int8"]
    done = jetson.run(["/tmp/package/install.sh", *options], **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [call for call in jetson.calls() if not call.startswith(("nvcc", "g++", "uname"))]
    order = [
        *("python3.10 -c import sys", "nvpmodel -m 0", "nvpmodel -q", "nvpmodel -q", "python3.10 -m venv"),
        *("python3.10 -m pip install", "python3.10 -m pip install", "cmake -S . -B build/device", "cmake --build"),
        *("ctest --test-dir", "cmake --install", "python3.10 -c from avsbg", "avsbg doctor"),
        "avsbg build /opt/avsbg/bundle --backend tensorrt --precision int8 --rest fp16 --implementation plugin",
        "avsbg verify /opt/avsbg/bundle --backend tensorrt:plugin:rest-fp16:int8",
        *("jetson_clocks --store", "jetson_clocks", "jetson_clocks --show", "avsbg bench run /opt/avsbg/bundle"),
        "jetson_clocks --restore /opt/avsbg/clocks.conf",
    ]
    assert len(calls) == len(order) and all(call.startswith(start) for call, start in zip(calls, order, strict=True))
    assert "--no-index" in calls[5] and "-DAVSBG_CUDA_ARCHITECTURES=87" in calls[7]
    assert "--scope end-to-end --video /tmp/v.mp4 --samples 30" in calls[-2]
    report = (jetson.path / "opt/avsbg/report.txt").read_text()
    assert "NV Power Mode: MODE_0" in report and "MaxFreq=1300500000" in report and "R36 (release)" in report


def test_both_runtimes_have_one_plugin_and_both_are_verified(
    root: CleanRoot, tiny: Bundle, some_wheel: Path, tmp_path: Path
) -> None:
    add_jetson(root)
    root.add_stub("avsbg")
    prefix = native_prefix(tmp_path / "prefix")
    request = PackageRequest("jetpack6", runtime="both", native=prefix, wheel=some_wheel)
    make_package(tiny, request, tmp_path / "p.tar.zst")
    unpack(tmp_path / "p.tar.zst", root).rename(root.path / "tmp/package")
    done = root.run(["/tmp/package/install.sh", "--samples", 0], AVSBG_CUDA_ARCHITECTURES="87")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [call for call in root.calls() if call.startswith("avsbg")] == [
        "avsbg-run --version",
        "avsbg doctor",
        "avsbg build /opt/avsbg/bundle --backend tensorrt --precision fp16 --implementation plugin",
        "avsbg verify /opt/avsbg/bundle --backend tensorrt:plugin:fp16",
        "avsbg-run verify /opt/avsbg/bundle --backend tensorrt:plugin:fp16",
    ]
    installed = root.path / "opt/avsbg"
    assert {one.name for one in (installed / "native/lib").iterdir()} == {
        *(one.name for one in (prefix / "lib").iterdir()),
        "libavsbg_tensorrt.so",  # that of the build, whose hash engines hold
    }
    # A user's own list of engines that were built here is another one.
    assert "export XDG_STATE_HOME=/opt/avsbg/state\n" in (installed / "bin/avsbg-run").read_text()


def test_onnx_runtime_needs_neither_an_engine_nor_pycuda(jetson: CleanRoot) -> None:
    done = jetson.run(["/tmp/package/install.sh", "--backend", "onnxruntime", "--prefix", "/opt/here", "--samples", 0])
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [call.split(" -")[0] for call in jetson.calls() if call.startswith(("avsbg", "cmake", "nvcc"))]
    assert calls == ["avsbg doctor", "avsbg verify /opt/here/bundle"]
    pins = (jetson.path / "opt/here/requirements.txt").read_text()
    assert "pycuda" not in pins and "cuda-bindings" not in pins and "onnxruntime==1.23.2" in pins
    assert "not run: --samples 0" in (jetson.path / "opt/here/report.txt").read_text()


def test_a_step_that_fails_ends_the_installation_and_gives_the_clocks_back(jetson: CleanRoot) -> None:
    (jetson.path / "tmp/v.mp4").touch()
    jetson.add_stub("avsbg", '[[ $1 != bench ]] || { echo "no memory" >&2; exit 1; }')
    done = jetson.run(
        ["/tmp/package/install.sh", "--fast-clocks", "--video", "/tmp/v.mp4"], AVSBG_CUDA_ARCHITECTURES="87"
    )
    assert done.returncode == 1 and "failed; the report so far: /opt/avsbg/report.txt" in done.stderr
    assert jetson.calls()[-1] == "jetson_clocks --restore /opt/avsbg/clocks.conf"
    # The package's rest is of its int8 engines alone.
    assert "avsbg build /opt/avsbg/bundle --backend tensorrt --precision fp16 --implementation plugin" in jetson.calls()
    assert (jetson.path / "opt/avsbg/report.txt").read_text().endswith("no memory\n")


def test_what_does_not_fit_the_machine_is_refused_before_anything_is_changed(jetson: CleanRoot) -> None:
    def refuse(*options: object) -> str:
        done = jetson.run(["/tmp/package/install.sh", *options])
        assert done.returncode == 1 and not (jetson.path / "opt/avsbg").exists(), done.stdout
        return done.stderr

    assert "there is no option --fast" in refuse("--fast")
    assert "not made for fp8, but for fp16 int8" in refuse("--precision", "fp8")
    assert "--rest fp32 cannot be combined with --precision fp16" in refuse("--rest", "fp32")
    assert "--rest bf16 cannot be built" in refuse("--precision", "int8", "--rest", "bf16")
    assert "--source cannot hold spaces" in refuse("--source", 'rtsp://a" b')
    for prefix in ("/opt/a b", "/opt/a%h", "/opt/a;b", "/opt/new/..", "/opt/./new", "/opt/é"):
        assert "letters, digits and . _ / + - only" in refuse("--prefix", prefix)
    (jetson.path / "opt/mine").mkdir()
    (jetson.path / "opt/link").symlink_to("mine")
    assert "/opt/link exists and is not an empty folder" in refuse("--prefix", "/opt/link/")
    (jetson.path / "opt/mine/file").touch()
    for prefix in ("/opt/mine", "/opt/mine/file", "/"):
        assert f"{prefix} exists and is not an empty folder" in refuse("--prefix", prefix)
    assert "the service sees neither home folders" in refuse("--source", "rtsp://a", "--prefix", "/home/a")
    (jetson.path / "etc/nv_tegra_release").write_text("# R38 (release), REVISION: 2.0\n")
    assert "whose Jetson Linux is R36; this machine has # R38" in refuse()
    add_jetson(jetson)
    jetson.add_stub("python3.10", "echo 3.12")
    assert "for Python 3.10; this machine has 3.12" in refuse()
    add_jetson(jetson)
    jetson.add_stub("uname", "echo x86_64")
    assert "for jetpack6 (aarch64); this machine is x86_64" in refuse()
    add_jetson(jetson)
    with (jetson.path / "tmp/package/bundle/clip.onnx").open("ab") as stream:
        stream.write(b"x")
    with (jetson.path / "tmp/package/settings.env").open("a") as stream:
        stream.write("touch /tmp/executed\n")
    assert "a file of the package is damaged" in refuse()
    assert not (jetson.path / "tmp/executed").exists()


def test_a_power_mode_that_the_machine_does_not_take_is_an_error(jetson: CleanRoot) -> None:
    jetson.add_stub("nvpmodel", "[[ $1 == -m ]] || printf 'NV Power Mode: 30W\\n2\\n'")
    done = jetson.run(["/tmp/package/install.sh", "--power-mode", 0])
    assert done.returncode == 1 and "the power mode 0 was not set" in done.stderr


def test_nothing_is_removed_that_was_not_installed(jetson: CleanRoot) -> None:
    done = jetson.run(["/tmp/package/uninstall.sh"])
    assert done.returncode == 1 and "was not made by install.sh" in done.stderr
    assert (jetson.path / "tmp/package/bundle").is_dir()


def test_the_container_file_takes_its_base_by_digest_and_its_steps_run(jetson: CleanRoot) -> None:
    commands = dockerfile.parse_file(str(jetson.path / "tmp/package/Dockerfile"))
    (base,) = [command for command in commands if command.cmd.upper() == "FROM"]
    assert base.value == ("nvcr.io/nvidia/l4t-jetpack:r36.4.0@sha256:DIGEST",)
    (copied,) = [command for command in commands if command.cmd.upper() == "COPY"]
    assert copied.value == (".", "/tmp/package")
    jetson.add_stub("apt-get")
    (jetson.path / "etc/nv_tegra_release").unlink()
    for command in commands:
        if command.cmd.upper() == "RUN":
            (text,) = command.value
            done = jetson.run(["sh", "-c", text])
            assert done.returncode == 0, done.stdout + done.stderr
    calls = [call for call in jetson.calls() if not call.startswith(("nvcc", "g++", "uname"))]
    assert calls[0] == "apt-get update" and "python3-libnvinfer" in calls[1]
    assert not [call for call in calls if call.startswith("avsbg")]  # no GPU is there while an image is built
    assert (jetson.path / "opt/avsbg/venv/package/runtime/lib/libavsbg_tensorrt.so").is_file()
    assert not (jetson.path / "tmp/package").exists()


def test_the_container_file_has_no_findings_of_hadolint(tmp_path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint is not installed")
    file = tmp_path / "Dockerfile"
    file.write_text(container_file(TARGETS["jetpack6"], "fp16").replace(DIGEST, f"sha256:{64 * '0'}"))
    done = subprocess.run([hadolint, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEVICE_FILES / "avsbg-live.service").read_text()
    for name, value in {"COMMAND": "/bin/true", "PREFIX": "/opt", "BACKEND": "x", "SOURCE": "y"}.items():
        text = text.replace(f"@{name}@", value)
    unit = tmp_path / "avsbg-live.service"
    unit.write_text(text)
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "avsbg-live" not in done.stderr, done.stderr


def test_the_scripts_have_no_findings_of_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, *DEVICE_FILES.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
