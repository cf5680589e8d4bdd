"""Programs in C and C++ against the installed library: the example, the C++ layer, both ways to find it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from fixtures import ROOT, libavsbg, tiny_bundle
from fixtures.libavsbg import Library

pytestmark = pytest.mark.native

EXAMPLE = ROOT / "examples" / "c" / "segment_raw.c"
STREAM = Path(__file__).with_name("stream_cpp.cpp")


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=10 * libavsbg.TIMEOUT,
        cwd=cwd, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def compile_with_pkg_config(compiler: str, source: Path, prefix: Path, target: Path, *flags: str) -> Path:
    """Compile a program with the flags that pkg-config tells; the library is found at run time beside its files."""
    told = run("pkg-config", "--cflags", "--libs", "avsbg", PKG_CONFIG_PATH=str(prefix / "lib" / "pkgconfig")).split()
    warnings = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
    run(compiler, *flags, *warnings, source, *told, f"-Wl,-rpath,{prefix / 'lib'}", "-o", target)
    return target


@pytest.mark.parametrize("machine", ["this", "aarch64"])
def test_the_example_in_c_writes_the_masks(tiny: Bundle, library: Library, tmp_path: Path, machine: str) -> None:
    """On aarch64 in emulation, with that processor's ONNX Runtime: the masks are those of this machine."""
    if machine == "aarch64":
        build, compiler = libavsbg.build_for_aarch64(), "aarch64-linux-gnu-gcc"
    else:
        build, compiler = libavsbg.Build(library.prefix, libavsbg.onnxruntime_library()), "cc"
    program = compile_with_pkg_config(
        compiler, EXAMPLE, build.prefix, tmp_path / "segment_raw", "-std=c99", *build.flags
    )
    random = np.random.default_rng(3)
    frames = random.integers(0, 256, (7, 48, 64, 3), dtype=np.uint8)
    sound = random.uniform(-1, 1, 7 * tiny_bundle.SAMPLE_RATE).astype(np.float32)
    frames.tofile(tmp_path / "frames.rgb")
    sound.tofile(tmp_path / "sound.f32")
    told = run(
        *build.emulator, program, tiny.path, "64", "48", "frames.rgb", "sound.f32",
        cwd=tmp_path, ONNXRUNTIME=str(build.onnxruntime),
    )  # fmt: skip
    assert told.split() == [f"{number:05d}.pgm" for number in range(7)]
    with library.open(tiny.path) as model:
        masks = [mask for first, last in ((0, 5), (5, 7)) for mask in model.run_clip(
            list(frames[first:last]), sound[first * 16000 : last * 16000], (64, 48))]  # fmt: skip
    for number, mask in enumerate(masks):
        header, content = (tmp_path / f"{number:05d}.pgm").read_bytes().split(b"255\n", 1)
        assert header == b"P5\n64 48\n"
        assert mask.decided is not None
        np.testing.assert_array_equal(np.frombuffer(content, np.uint8).reshape(48, 64), mask.decided)
    assert 0 < np.mean([mask.decided for mask in masks]) < 255  # type: ignore[arg-type]


def test_the_cplusplus_layer_streams(tiny_stream: Bundle, prefix: Path, tmp_path: Path) -> None:
    program = compile_with_pkg_config("c++", STREAM, prefix, tmp_path / "stream", "-std=c++17")
    told = run(program, tiny_stream.path, libavsbg.onnxruntime_library()).splitlines()
    masks = [f"{index} {index + 0.9375:.4f} {1 if index < 3 else 2} 0.25 64" for index in range(4)]
    assert told == [*masks, "backend: the stream was finished."]


def test_cmake_finds_the_package(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(user LANGUAGES C)\nfind_package(avsbg REQUIRED)\n"
        f"add_executable(user {EXAMPLE})\ntarget_link_libraries(user PRIVATE avsbg::avsbg)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "build")
    done = subprocess.run(
        [tmp_path / "build" / "user"], capture_output=True, text=True, check=False, timeout=libavsbg.TIMEOUT
    )
    assert (done.returncode, done.stderr) == (2, "usage: segment_raw BUNDLE WIDTH HEIGHT FRAMES SOUND\n")


def test_the_library_shows_its_interface_alone(prefix: Path) -> None:
    """No symbol of C++ to clash with a program's, and none of the interface that the header does not declare."""
    listed = run("nm", "-D", "--defined-only", prefix / "lib" / "libavsbg.so.1").splitlines()
    names = {line.split()[2].partition("@")[0] for line in listed if " A " not in line}
    header = (prefix / "include" / "avsbg.h").read_text()
    assert names and all(name.startswith("avsbg_") and f" {name}(" in header.replace("*", " ") for name in names)
    needed = run("readelf", "-d", prefix / "lib" / "libavsbg.so.1")
    assert "SONAME" in needed and "[libavsbg.so.1]" in needed
    for foreign in ("onnxruntime", "python", "opencv", "nvinfer", "avcodec"):
        assert foreign not in needed
    backend = run("nm", "-D", "--defined-only", prefix / "lib" / "libavsbg_backend_onnxruntime.so").split()
    assert backend[2::3] == ["avsbg_backend"]
