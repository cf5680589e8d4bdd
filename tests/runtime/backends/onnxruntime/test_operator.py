"""The ONNX Runtime operator library: every path against float64, shapes, types, errors, and the native test program."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from avsbg.native_library import NativeLibraryError, native_library
from avsbg.runtime.backends.onnxruntime.operator import available_paths, register
from fixtures import ROOT
from fixtures.operator_graphs import Shape, descriptors, graph, means, volume
from fixtures.operator_library import SOURCES, path_sources

COMPILER = shutil.which("g++")


def library_or_reason() -> tuple[Path | None, str]:
    try:
        return native_library("onnxruntime").path, ""
    except NativeLibraryError as error:
        return None, str(error)


LIBRARY, REASON = library_or_reason()
PATHS = available_paths() if LIBRARY else ["auto"]
EXACT_PATHS = [path for path in PATHS if not path.endswith("bf16")]


@pytest.fixture(autouse=True)
def _library() -> None:
    if LIBRARY is None:
        if COMPILER is None:
            pytest.skip(REASON)
        pytest.fail(f"{COMPILER} is here, but: {REASON}")


def session(model: onnx.ModelProto, path: str = "auto", threads: int = 1) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    assert register(options, path) == (PATHS[0] if path == "auto" else path)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


SHAPES = [
    (0, 3, 4, 8),
    (1, 1, 1, 8),
    (2, 1, 49, 64),
    (2, 49, 1, 64),
    (4, 49, 49, 128),
    (3, 13, 131, 24),
    (1, 113, 33, 512),
    (2, 197, 200, 7),  # beyond what the contract guarantees: any C works here
    (1, 33, 9000, 8),  # more columns than one chunk
    (1, 8000, 17, 8),  # more rows than one chunk
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("path", EXACT_PATHS)
def test_means_equal_the_reference_and_do_not_depend_on_the_threads(path: str, shape: tuple[int, ...]) -> None:
    feed = descriptors(*shape)
    single = session(graph(), path, threads=1).run(None, feed)
    double = session(graph(), path, threads=2).run(None, feed)
    for result, again, expected in zip(single, double, means(**feed), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * shape[3] ** 0.5)
        np.testing.assert_array_equal(result, again)


@pytest.mark.parametrize("path", EXACT_PATHS)
@pytest.mark.parametrize(
    ("cast", "dtype"), [(TensorProto.FLOAT16, np.float16), (TensorProto.BFLOAT16, ml_dtypes.bfloat16)], ids=str
)
def test_half_inputs_are_widened_exactly(path: str, cast: int, dtype: Any) -> None:
    feed = descriptors(2, 50, 70, 72)
    feed["a"][0, 0, :4] = (1e-7, 6e-5, 65504, -0.0)  # fp16: subnormal, near the smallest normal, the largest
    rounded = {name: array.astype(dtype) for name, array in feed.items()}
    for result, expected in zip(
        session(graph(cast=cast), path).run(None, feed), means(rounded["a"], rounded["b"]), strict=True
    ):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=1e-4)


def test_a_bf16_path_rounds_to_nearest_even() -> None:
    paths = [path for path in PATHS if "bf16" in path]
    if not paths:
        pytest.skip("this CPU has no bf16 instructions")
    feed = descriptors(2, 50, 70, 65)
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in feed.items()}
    for path in paths:
        results = session(graph(), path).run(None, feed)
        for result, expected in zip(results, means(rounded["a"], rounded["b"]), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
        assert np.abs(results[0] - means(**feed)[0]).max() > 1e-4, "fp32 inputs were not rounded: is this path bf16?"


@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_finite_goes_where_torch_relu_lets_it(path: str) -> None:
    feed = {"a": np.ones((1, 3, 9), np.float32), "b": np.ones((1, 19, 9), np.float32)}
    feed["a"][0, 1, 0] = np.nan
    feed["a"][0, 2, 8] = -np.inf
    feed["b"][0, 18, 8] = -1  # -inf * -1: the last row meets +inf in the last column alone
    mean_a, mean_b = session(graph(), path).run(None, feed)
    np.testing.assert_array_equal(mean_a, np.float32([[(18 * 9 + 7) / 19, np.nan, np.inf]]))
    np.testing.assert_array_equal(mean_b, np.full((1, 19), np.nan, np.float32))
    feed["a"][0, 1, 0] = 1
    mean_b = session(graph(), path).run(["mean_b"], feed)[0]
    np.testing.assert_array_equal(mean_b, np.float32([[*[6.0] * 18, np.inf]]))  # -inf counts as 0


@pytest.mark.parametrize("relu", [None, 0, 1])
@pytest.mark.parametrize("path", EXACT_PATHS)
def test_the_volume(path: str, relu: int | None) -> None:
    attributes = {} if relu is None else {"relu": relu}
    feed = descriptors(2, 120, 77, 40)
    result = session(graph("CorrelationVolume", outputs=("volume",), **attributes), path, threads=2).run(None, feed)[0]
    expected = volume(**feed)
    np.testing.assert_allclose(result, np.maximum(expected, 0) if relu else expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("outputs", [("mean_a",), ("mean_a", "")])
def test_the_second_output_may_be_left_out(outputs: tuple[str, ...]) -> None:
    feed = descriptors(2, 30, 40, 16)
    (result,) = session(graph(outputs=outputs)).run(None, feed)
    np.testing.assert_allclose(result, means(**feed)[0], rtol=1e-5, atol=1e-5)


def test_only_named_paths_round() -> None:
    assert PATHS[0] in EXACT_PATHS
    feed = descriptors(1, 40, 40, 32)
    for result, expected in zip(
        session(graph()).run(None, feed), session(graph(), PATHS[0]).run(None, feed), strict=True
    ):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ((("N", "P", "C"), ("N", "Q", "C")), [["N", "P"], ["N", "Q"]]),
        ((("N", 4, 8), (3, "Q", 8)), [[3, 4], [3, "Q"]]),
        (((2, 4, 8), (2, 5, 8)), [[2, 4], [2, 5]]),
    ],
)
def test_shapes_are_inferred_with_their_symbols(shapes: tuple[Shape, Shape], expected: list[list[Any]]) -> None:
    for cast in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16):
        outputs = session(graph(shapes=shapes, cast=cast)).get_outputs()
        assert [output.shape for output in outputs] == expected
        assert {output.type for output in outputs} == {"tensor(float)"}
    (output,) = session(graph("CorrelationVolume", outputs=("volume",), shapes=shapes)).get_outputs()
    assert output.shape == [*expected[0], expected[1][1]]


def test_the_library_wins_over_the_function_body() -> None:
    model = graph(outputs=("mean_a",))
    zero = helper.make_node("Constant", [], ["zero"], value_float=0.0)
    body = [zero, helper.make_node("Mul", ["a", "zero"], ["mean_a"])]
    model.functions.append(
        helper.make_function("avsbg", "MeanCorrelation", ["a", "b"], ["mean_a"], body, [helper.make_opsetid("", 20)])
    )
    feed = descriptors(1, 5, 6, 8)
    np.testing.assert_allclose(session(model).run(None, feed)[0], means(**feed)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((2, 3), (2, 3), r"b \[N, Q, C\] with equal N and C, not \[2, 3\] and \[2, 3\]"),
        ((2, 3, 8), (2, 3, 16), r"not \[2, 3, 8\] and \[2, 3, 16\]"),
        ((2, 3, 8), (1, 3, 8), r"not \[2, 3, 8\] and \[1, 3, 8\]"),
        ((2, 0, 8), (2, 3, 8), r"at least 1, but a is \[2, 0, 8\]"),
        ((2, 3, 0), (2, 3, 0), r"at least 1, but a is \[2, 3, 0\]"),
    ],
)
@pytest.mark.parametrize("operator", ["MeanCorrelation", "CorrelationVolume"])
def test_inputs_that_do_not_fit_are_named(operator: str, a: tuple[int, ...], b: tuple[int, ...], message: str) -> None:
    runs = session(graph(operator, outputs=("out",), shapes=(None, None)))
    with pytest.raises(Exception, match=f"{operator}.*{message}"):
        runs.run(None, {"a": np.ones(a, np.float32), "b": np.ones(b, np.float32)})


def test_double_is_refused_when_the_graph_is_loaded() -> None:
    with pytest.raises(Exception, match=r"tensor\(double\).*MeanCorrelation"):
        session(graph(cast=TensorProto.DOUBLE))


def test_a_path_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(NativeLibraryError, match=f"'avx9000'.*Choose one of: auto, {', '.join(PATHS)}"):
        register(onnxruntime.SessionOptions(), "avx9000")
    options = onnxruntime.SessionOptions()  # as a user without our Python would
    options.add_session_config_entry("avsbg.cpu_path", "avx9000")
    with pytest.raises(Exception, match=f'avsbg.cpu_path is "avx9000".*it can run: auto, {", ".join(PATHS)}'):
        options.register_custom_ops_library(str(LIBRARY))


@pytest.mark.parametrize(("relu", "message"), [(2, "must be 0 or 1, not 2"), (0.5, "not the float 0.5")])
def test_a_wrong_attribute_is_refused(relu: float, message: str) -> None:
    with pytest.raises(Exception, match=f"CorrelationVolume: relu .*{message}"):
        session(graph("CorrelationVolume", outputs=("volume",), relu=relu))


def test_the_library_exports_its_two_functions_and_needs_no_onnxruntime() -> None:
    if shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("binutils are not here")
    symbols = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in symbols.splitlines()} == {"RegisterCustomOps", "avsbg_cpu_paths"}
    needed = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True, check=True).stdout
    assert "onnxruntime" not in needed.replace("libavsbg_onnxruntime", "")


def build_native_test(name: str, compiler: str, flags: list[str]) -> Path:
    """The test program under build/, compiled again only when a source is newer; CMake has the same flags per path."""
    sources = path_sources(compiler)
    sources |= {SOURCES / "correlation.cpp": [], SOURCES / "dispatch.cpp": []}
    test = ROOT / "tests" / "native" / "onnxruntime" / "paths_test.cpp"
    sources[test] = [f"-I{SOURCES}", "-pthread"]

    folder = ROOT / "build" / "tests" / f"onnxruntime-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "paths_test"
    newest = max(file.stat().st_mtime for file in [*SOURCES.iterdir(), test])
    if program.is_file() and program.stat().st_mtime > newest:
        return program
    common = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-fno-math-errno", *flags]
    objects = []
    for source, isa in sources.items():
        objects.append(folder / f"{source.stem}.o")
        subprocess.run([*common, *isa, "-c", source, "-o", objects[-1]], check=True)
    partial = folder / f"paths_test.{os.getpid()}"
    subprocess.run([*common, *objects, "-pthread", "-o", partial], check=True)
    partial.replace(program)
    return program


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.parametrize(
    "sanitizers", ["address,undefined", "thread"], ids=["no memory error or undefined behaviour", "no data race"]
)
def test_the_native_program_under_sanitizers(sanitizers: str) -> None:
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    flags = ["-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    program = build_native_test(sanitizers.replace(",", "-"), COMPILER, flags)
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines() == [f"{path}: good" for path in PATHS]


@pytest.mark.native
@pytest.mark.slow
def test_the_neon_path_under_an_emulator() -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if compiler is None or emulator is None:
        pytest.skip("needs Debian's g++-aarch64-linux-gnu and qemu-user")
    program = build_native_test("aarch64", compiler, ["-O3", "-static"])
    result = subprocess.run([emulator, program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines() == ["neon: good", "portable: good"]
