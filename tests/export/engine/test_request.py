"""Requests that cannot be built are refused, by the name of the flag, before any work; none of this needs TensorRT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avsbg.export.engine import api as api_module
from avsbg.export.engine.api import TensorRT, choose_device, import_tensorrt, validate_builder_options
from avsbg.export.engine.layers import (
    compare_types,
    count_types,
    layers_from_inspector,
    layers_from_log,
    realised_types,
)
from avsbg.export.engine.request import BuildError, EngineRequest
from avsbg.runtime.device.gpu import CudaDriver, Gpu

NO_DRIVER = CudaDriver(None, "the NVIDIA driver is not installed")
ORIN = CudaDriver("12.6", None, (Gpu("Orin", 87, 8 * 2**30, 8, integrated=True),))


class FakeRtx:
    """The one thing that `choose_device` asks TensorRT for RTX."""

    class ComputeCapability:
        SM75 = SM86 = SM89 = SM120 = 0


def _request(**fields: Any) -> EngineRequest:
    return EngineRequest(**{"backend": "tensorrt-rtx", "precision": "fp16", "compute_capabilities": (86,), **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "tensorflow"}, "--backend tensorflow does not exist. Choose one of: tensorrt, tensorrt-rtx"),
        ({"precision": "half"}, "--precision half does not exist. Choose one of: fp32, tf32, fp16, bf16, int8, fp8"),
        (
            {"rest": "fp16"},
            "--rest fp16 cannot be combined with --precision fp16: what int8 and fp8 do not quantise is",
        ),
        ({"precision": "int8", "rest": "bf16"}, "--rest bf16 cannot be combined with --precision int8"),
        ({"operator": "custom"}, "--implementation custom does not exist. Choose one of: plugin, plain"),
        ({"clips": (1, 4, 2)}, "--batch-range 1 4 2 is no range"),
        ({"clips": (0, 1, 1)}, "--batch-range 0 1 1 is no range"),
        ({"workspace_mb": 0}, "--workspace must lie between 1 and 1048576 MB, not 0"),
        ({"workspace_mb": 2**50}, "--workspace must lie between 1 and 1048576 MB"),
        ({"aux_streams": -1}, "--aux-streams must lie between 0 and 64, not -1"),
        ({"compute_capabilities": (86, 86)}, "--compute-capability repeats"),
    ],
)
def test_values_that_do_not_exist(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError) as caught:
        _request(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"version_compatible": True}, "--version-compatible"),
        ({"timing_cache": Path("cache")}, "--timing-cache"),
        ({"strip_weights": True}, "--strip-weights"),
        ({"backend": "tensorrt"}, "--compute-capability"),
        (
            {"backend": "tensorrt", "compute_capabilities": (), "timing_cache": Path("/nowhere/cache")},
            "--timing-cache /nowhere/cache: there is no folder /nowhere",
        ),
    ],
)
def test_options_that_a_backend_would_ignore_or_cannot_do(
    fields: dict[str, Any], flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "read_cuda_driver", lambda: NO_DRIVER)
    with pytest.raises(BuildError, match=f"^{flag}"):
        validate_builder_options(_request(**fields))


def _rtx() -> TensorRT:
    return TensorRT("tensorrt-rtx", FakeRtx, "1.7")


def test_the_device_is_named_or_present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "read_cuda_driver", lambda: NO_DRIVER)
    assert choose_device(_rtx(), _request()).compute_capabilities == (86,)
    with pytest.raises(BuildError, match=r"nothing says what to build for.*75, 86, 89, 120"):
        choose_device(_rtx(), _request(compute_capabilities=()))
    with pytest.raises(BuildError, match=r"TensorRT builds only where there is a GPU, and the NVIDIA driver"):
        choose_device(TensorRT("tensorrt", None, "10.3"), _request(backend="tensorrt", compute_capabilities=()))


def test_a_type_that_a_gpu_lacks_is_refused_with_what_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "read_cuda_driver", lambda: NO_DRIVER)
    assert choose_device(_rtx(), _request(precision="fp8", compute_capabilities=(89,))).compute_capabilities == (89,)
    with pytest.raises(BuildError, match=r"--precision fp8 needs compute capability 8\.9.* 8\.6 .*int8.* 89, 120"):
        choose_device(_rtx(), _request(precision="fp8", compute_capabilities=(89, 86)))
    with pytest.raises(BuildError, match=r"--precision bf16 needs compute capability 8\.0.* 7\.5 .*fp16.* 86, 89, 120"):
        choose_device(_rtx(), _request(precision="bf16", compute_capabilities=(75,)))
    monkeypatch.setattr(api_module, "read_cuda_driver", lambda: ORIN)
    with pytest.raises(BuildError, match=r"8\.9 or later, and 8\.7 has .*int8, or a newer GPU"):
        choose_device(TensorRT("tensorrt", None, "10.3"), _request(backend="tensorrt", precision="fp8"))


def test_a_jetson_is_built_for_by_tensorrt_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "read_cuda_driver", lambda: ORIN)
    monkeypatch.setattr(api_module, "power_mode", lambda: "0002")
    monkeypatch.setattr(api_module, "module_name", lambda: "NVIDIA Jetson Orin Nano Developer Kit")
    with pytest.raises(BuildError, match=r"does not build for compute capability 87.*--backend tensorrt on the device"):
        choose_device(_rtx(), _request(compute_capabilities=()))
    device = choose_device(TensorRT("tensorrt", None, "10.3"), _request(backend="tensorrt", compute_capabilities=()))
    assert (device.name, device.compute_capabilities, device.power_mode) == ("Orin", (87,), "0002")
    assert (device.multiprocessors, device.memory_gib, device.module) == (8, 8, "NVIDIA Jetson Orin Nano Developer Kit")


def test_a_tensorrt_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    from avsbg.runtime.errors import BackendError

    old = ModuleType("tensorrt")
    old.__version__ = "8.6.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendError, match=r"TensorRT 8\.6\.1 is too old"):
        import_tensorrt("tensorrt")


def _tensor(shape: str, kind: str) -> str:
    return f"{{ Name: t, Dimensions: [{shape}], Strides: [1], StrideOrder: [0], Datatype: {kind}, Format: (Linear) }}"


LOG = f"""Layers:
Name: a/MatMul_myl0_1, LayerType: gemm, Inputs: [ {_tensor("-1,8", "Half")}], Constants: [ {_tensor("8,4", "Half")}, \
{_tensor("1,1,1,1", "Float")}], Outputs: [ {_tensor("-1,4", "Half")}], TacticName: t1, StreamId: 0, Metadata: \
[ONNX Layer: a/MatMul][ONNX Layer: a/Add]
Name: __myl_Cast, LayerType: kgen, Inputs: [ {_tensor("-1,8", "Float")}], Constants: [], Outputs: \
[ {_tensor("-1,8", "Half")}], TacticName: , StreamId: 0, Metadata: [ONNX Layer: a/MatMul][ONNX Layer: b/Cast]
Name: c/Conv_myl0_2, LayerType: correlation, Inputs: [ {_tensor("-1,8,4,4", "Float")}], Constants: [], Outputs: \
[ {_tensor("-1,8", "Half")}], TacticName: t2, StreamId: 0, Metadata: [ONNX Layer: c/Conv]
Name: w, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 1, Metadata: [ONNX Layer: d]
"""


def test_types_are_read_from_the_builders_log() -> None:
    layers = layers_from_log(["something else", LOG])
    assert [layer.kind for layer in layers] == ["gemm", "kgen", "correlation", "wait"]
    types = realised_types(layers, ["a/MatMul", "c/Conv", "d/MatMul"])
    # A product's type is that of the kernel that multiplies: not of its scalar factor, not of a cast before it.
    assert types == {"a/MatMul": ("fp16",), "c/Conv": ("fp32",), "d/MatMul": ()}
    assert count_types(types) == {"fp16": 1, "fp32": 1, "unknown": 1}
    expected = dict.fromkeys(types, "fp16")
    # A type that the log states as another is told apart from one that it does not state.
    assert compare_types(layers, expected) == (("c/Conv: fp32",), ("d/MatMul: no layer names it",))


@pytest.mark.parametrize(
    ("inputs", "constants", "wanted", "says"),
    [
        (["Half"], ["Half"], "fp16", "as expected"),
        (["Float"], ["Float"], "fp16", "another type"),
        (["Int8"], ["Float"], "int8", "another type"),  # one operand dequantised, multiplied in float32
        (["Float"], ["Int8", "Float"], "int8", "another type"),
        (["Half", "Float"], ["Half"], "fp16", "not enough"),  # a residual in float32 is added to the product
        (["Half", "Float"], None, "fp16", "not enough"),  # a region whose weights are not listed
        (["Half"], None, "fp16", "as expected"),
        (["Float"], None, "fp16", "another type"),
        (["Int32"], None, "fp16", "not enough"),
    ],
)
def test_a_report_that_does_not_say_is_told_from_one_that_says_another_type(
    inputs: list[str], constants: list[str] | None, wanted: str, says: str
) -> None:
    def tensors(kinds: list[str]) -> list[dict[str, Any]]:
        return [{"Name": "t", "Dimensions": [8, 8], "Format/Datatype": kind} for kind in kinds]

    entry = {"Name": "a", "LayerType": "gemm", "Inputs": tensors(inputs), "Metadata": "[ONNX Layer: a/MatMul]"}
    if constants is not None:
        entry["Constants"] = tensors(constants)
    layers = layers_from_inspector(json.dumps({"Layers": [entry]}))
    differing, unreported = compare_types(layers, {"a/MatMul": wanted})
    assert (len(differing), len(unreported)) == {"as expected": (0, 0), "another type": (1, 0), "not enough": (0, 1)}[
        says
    ]


def _line(node: str, kind: str, inputs: list[str], constants: list[str]) -> str:
    return (
        f"Name: {node}_myl0_1, LayerType: {kind}, Inputs: [ {', '.join(inputs)}], Constants: "
        f"[ {', '.join(constants)}], Outputs: [ {_tensor('-1,8', 'Float')}], TacticName: t, StreamId: 0, "
        f"Metadata: [ONNX Layer: {node}]"
    )


@pytest.mark.parametrize(
    ("inputs", "constants", "types"),
    [
        # Scale and bias of each channel are float32 beside two quantised operands.
        (["-1,4,8,8 Int8"], ["32,4,7,7 Int8", "1,32,1,1 Float", "1,32,1,1 Float"], ("int8",)),
        (["-1,4,8,8 FP8"], ["32,4,7,7 FP8", "1 Float"], ("fp8",)),
        # Dequantised within the kernel, and multiplied in float32.
        (["-1,32 Int8", "1,32,64 Float"], [], ("fp32", "int8")),
        (["-1,32 Int8"], ["32,64 Float"], ("fp32", "int8")),
        # A product that has one output channel: the constant is its weight.
        (["-1,32,8,8 Int8"], ["1,32,1,1 Float"], ("fp32", "int8")),
        (["-1,32 Float"], ["32,64 Float"], ("fp32",)),
    ],
)
def test_quantised_products_are_told_from_dequantised_ones(
    inputs: list[str], constants: list[str], types: tuple[str, ...]
) -> None:
    tensors = [[_tensor(*text.split()) for text in part] for part in (inputs, constants)]
    layers = layers_from_log([_line("a/MatMul", "gemm", *tensors)])
    assert realised_types(layers, ["a/MatMul"]) == {"a/MatMul": types}


def test_types_are_read_from_the_engine_inspector() -> None:
    def tensor(shape: list[int], kind: str) -> dict[str, Any]:
        return {"Name": "t", "Dimensions": shape, "Format/Datatype": kind}

    document = {
        "Layers": [
            {
                "Name": "a",
                "LayerType": "gemm",
                "Inputs": [tensor([-1, 8], "Row major linear FP16 format")],
                "Constants": [tensor([1], "Float")],
                "Outputs": [tensor([-1, 4], "Half")],
                "TacticName": "sm80_xmma",
                "Metadata": "[ONNX Layer: a/MatMul]",
            }
        ]
    }
    (layer,) = layers_from_inspector(json.dumps(document))
    assert (layer.inputs, layer.outputs, layer.nodes) == (("fp16",), ("fp16",), ("a/MatMul",))
    with pytest.raises(BuildError, match="without detailed profiling verbosity"):
        layers_from_inspector('{"Layers": ["a"]}')
    with pytest.raises(BuildError, match="with what is no JSON: ''"):
        layers_from_inspector("")
    with pytest.raises(BuildError, match="printed no table of layers"):
        layers_from_log(["nothing"])
