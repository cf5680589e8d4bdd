"""The backend for TensorRT, on a fake `libnvinfer` and a fake CUDA driver that hold to the rules of the real ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from avsbg.runtime.bundle import Bundle
from fixtures import fake_libnvinfer, libavsbg
from fixtures.fake_libnvinfer import add_fake_engine

pytestmark = pytest.mark.native

TARGETS = (*libavsbg.SANITIZED_TARGETS, "avsbg_backend_tensorrt")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The program of threads under AddressSanitizer, a folder of backends, and one of the fake libraries."""
    programs = libavsbg.build_sanitized("address")
    if "BACKEND_TENSORRT_INCLUDES" not in (programs.parents[2] / "CMakeCache.txt").read_text():
        pytest.skip("libavsbg is not built for TensorRT: no headers of CUDA, or none of TensorRT")
    libavsbg.build_sanitized("address", TARGETS)
    folder = tmp_path_factory.mktemp("tensorrt")
    fakes = fake_libnvinfer.build(programs.parents[2] / "prefix", folder / "fakes")
    return programs / "avsbg_exercise", fake_libnvinfer.install(programs, folder / "backends"), fakes


def copies(tiny: Bundle, tiny_stream: Bundle, folder: Path) -> tuple[Path, Path]:
    """Copies of the two bundles."""
    return shutil.copytree(tiny.path, folder / "clips"), shutil.copytree(tiny_stream.path, folder / "streams")


def test_clips_and_streams_of_four_threads(
    tiny: Bundle, tiny_stream: Bundle, tmp_path: Path, machine: tuple[Path, Path, Path]
) -> None:
    program, backends, fakes = machine
    clips, streams = copies(tiny, tiny_stream, tmp_path)
    onnxruntime = backends / "libavsbg_backend_onnxruntime.so"
    add_fake_engine(clips, "clip", onnxruntime, plugin=True)
    for graph in ("encode", "decode"):
        add_fake_engine(streams, graph, onnxruntime, plugin=graph == "decode")
    report = tmp_path / "report"
    told = libavsbg.run_sanitized(
        program, clips, streams, backends, fakes / "libnvinfer.so.10", "tensorrt",
        LD_LIBRARY_PATH=fakes, FAKE_CUDA_REPORT=report,
    )  # fmt: skip
    assert told == [str(3 * (16 * 24 + 1)), "13", "1", "1"]  # what ONNX Runtime's backend tells of the same
    captured, launched = map(int, report.read_text().split())
    assert captured >= 3
    assert launched > captured


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": "10.3.0"}, "was built by TensorRT 10.3.0; installed is 10.13.3"),
        ({"device": {"compute_capabilities": [89]}}, "this GPU, Orin, has 87"),
        (
            {"device": {"compute_capabilities": [87], "name": "Orin", "multiprocessors": 16}},
            "multiprocessors 16, here 8",
        ),
    ],
)
def test_an_engine_that_cannot_run_here_is_refused(
    tiny: Bundle,
    tiny_stream: Bundle,
    tmp_path: Path,
    machine: tuple[Path, Path, Path],
    changes: dict[str, Any],
    named: str,
) -> None:
    program, backends, fakes = machine
    clips, streams = copies(tiny, tiny_stream, tmp_path)
    add_fake_engine(clips, "clip", backends / "libavsbg_backend_onnxruntime.so", plugin=True, **changes)
    with pytest.raises(AssertionError, match=named):
        libavsbg.run_sanitized(
            program, clips, streams, backends, fakes / "libnvinfer.so.10", "tensorrt", LD_LIBRARY_PATH=fakes
        )
