from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsbg import native_library
from avsbg.native_library import NativeLibraryError
from avsbg.runtime import backends
from avsbg.runtime.backends import Backend, BackendSpec, create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError, BundleError
from fixtures import tiny_bundle


@pytest.mark.parametrize(("operator", "graph"), [(None, "clip"), ("function", "clip"), ("plain", "clip.plain")])
@pytest.mark.parametrize("clips", [1, 4])
def test_each_form_computes_the_network(tiny: Bundle, operator: str | None, graph: str, clips: int) -> None:
    arrays = tiny_bundle.inputs(clips, seed=7)
    with create("onnxruntime", tiny, operator=operator) as backend:
        results = backend.run(arrays)
        described = backend.describe()
    for name, reference in tiny_bundle.expected(**arrays).items():
        np.testing.assert_allclose(results[name], reference, atol=1e-5)
    assert described["graph"] == graph
    assert described["operator"] == (operator or "function")
    assert described["providers"] == ["CPUExecutionProvider"]


def test_only_the_outputs_asked_for(tiny: Bundle) -> None:
    with create("onnxruntime", tiny) as backend:
        assert list(backend.run(tiny_bundle.inputs(1, 0), ["probability"])) == ["probability"]
        with pytest.raises(BackendError, match=r"no output 'mask'.*logits, probability"):
            backend.run(tiny_bundle.inputs(1, 0), ["mask"])


def test_arrays_that_are_not_contiguous(tiny: Bundle) -> None:
    arrays = tiny_bundle.inputs(2, 0)
    mirrored = {"frames": arrays["frames"][:, :, :, ::-1], "waveform": arrays["waveform"]}
    with create("onnxruntime", tiny) as backend:
        np.testing.assert_allclose(backend.run(mirrored)["logits"], backend.run(arrays)["logits"][..., ::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((1, 5, 16, 24, 3), np.float32)}, r"frames is float32 .*contract is uint8"),
        ({"frames": np.zeros((1, 4, 16, 24, 3), np.uint8)}, r"\[1, 4, 16, 24, 3\].*\[clips=1, 5, 16, 24, 3\]"),
        ({"frames": np.zeros((5, 16, 24, 3), np.uint8)}, r"frames is uint8 \[5, 16, 24, 3\]"),
        ({"waveform": np.zeros((2, 80000), np.float32)}, r"waveform is float32 \[2, 80000\].*\[clips=1, 80000\]"),
        ({"waveform": [0.0]}, "waveform is a list"),
        ({"log_mel": np.zeros(1)}, r"takes the inputs frames, waveform, not frames, waveform, log_mel"),
    ],
)
def test_inputs_are_held_to_the_contract(tiny: Bundle, change: dict[str, Any], message: str) -> None:
    with create("onnxruntime", tiny) as backend, pytest.raises(BackendError, match=message):
        backend.run({**tiny_bundle.inputs(1, 0), **change})


def test_a_missing_input_is_named(tiny: Bundle) -> None:
    with create("onnxruntime", tiny) as backend, pytest.raises(BackendError, match="not frames"):
        backend.run({"frames": tiny_bundle.inputs(1, 0)["frames"]})


def test_a_backend_works_only_inside_its_with_block(tiny: Bundle) -> None:
    backend = create("onnxruntime", tiny)
    with pytest.raises(BackendError, match="not open"):
        backend.run(tiny_bundle.inputs(1, 0))
    with backend:
        backend.run(tiny_bundle.inputs(1, 0))
    with pytest.raises(BackendError, match="not open"):
        backend.run(tiny_bundle.inputs(1, 0))


def test_what_was_asked_for_and_cannot_be_had_is_an_error(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"unknown backend 'tpu'.*onnxruntime"):
        create("tpu", tiny)
    with pytest.raises(BackendError, match=r"no option 'fast'.*operator, precision, provider, .*threads, clips"):
        create("onnxruntime", tiny, fast=True)
    with pytest.raises(BundleError, match=r"no graph 'decode'"):
        create("onnxruntime", tiny, graph="decode")
    with pytest.raises(BackendError, match=r"no implementation 'magic' of the operator.*function, native, plain"):
        create("onnxruntime", tiny, operator="magic")
    with pytest.raises(BackendError, match=r"no implementation 'plugin' of the operator"):
        create("onnxruntime", tiny, **BackendSpec.parse("onnxruntime:plugin").options())
    with pytest.raises(BackendError, match=r"clip\.plain holds no custom operator"):
        create("onnxruntime", tiny, graph="clip.plain", operator="function")
    with pytest.raises(BackendError, match="threads must be at least 1, not 0"):
        create("onnxruntime", tiny, threads=0)
    with pytest.raises(BackendError, match=r"no NoSuchProvider.*CPUExecutionProvider"):
        create("onnxruntime", tiny, provider="NoSuchProvider").__enter__()
    monkeypatch.setattr(native_library, "_folders", lambda: [Path("/nowhere")])
    with pytest.raises(NativeLibraryError, match="no native libraries"):
        create("onnxruntime", tiny, operator="native")


def has_native_operator() -> bool:
    try:
        native_library.native_library("onnxruntime")
    except NativeLibraryError:
        return False
    return True


@pytest.mark.skipif(not has_native_operator(), reason="the native operator was not built: no C++ compiler")
def test_the_native_operator_is_what_runs(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ONNX Runtime's own profile: the node ran as our operator, and no node of the function body did."""
    arrays = tiny_bundle.inputs(2, seed=7)
    profiles = {}
    for operator in ("native", "function"):
        backend = create("onnxruntime", tiny, operator=operator, threads=1)
        made = backend._options  # type: ignore[attr-defined]

        def profiled(onnxruntime: Any, made: Any = made) -> Any:
            options = made(onnxruntime)
            options.enable_profiling = True
            options.profile_file_prefix = str(tmp_path / "profile")
            return options

        monkeypatch.setattr(backend, "_options", profiled)
        with backend:
            results = backend.run(arrays)
            described = backend.describe()
            events = json.loads(Path(backend._session.end_profiling()).read_text())  # type: ignore[attr-defined]
        np.testing.assert_allclose(results["logits"], tiny_bundle.expected(**arrays)["logits"], atol=1e-5)
        assert bool(described["kernel"]) == (operator == "native")
        profiles[operator] = {event["args"].get("op_name") for event in events if event["cat"] == "Node"}
    assert "MeanCorrelation" in profiles["native"]
    assert "MatMul" not in profiles["native"]
    assert "MeanCorrelation" not in profiles["function"]


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_another_provider_than_the_one_asked_for_is_an_error(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is listed but does not start: ONNX Runtime carries on with the CPU, we do not."""
    import onnxruntime

    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.raises(BackendError, match="CUDAExecutionProvider"):
        create("onnxruntime", tiny, provider="CUDAExecutionProvider").__enter__()


def test_threads_and_clips_are_what_runs(tiny: Bundle) -> None:
    with create("onnxruntime", tiny, threads=1, clips=2) as backend:
        assert backend.describe()["threads"] == 1
        assert backend.describe()["clips"] == 2
        backend.run(tiny_bundle.inputs(2, 0))
        with pytest.raises(BackendError, match="failed on the graph clip"):
            backend.run(tiny_bundle.inputs(3, 0))


def test_a_graph_that_is_no_onnx_file(bundle_copy: Path, tiny: Bundle) -> None:
    (bundle_copy / "clip.onnx").write_bytes(b"not onnx")
    with pytest.raises(BackendError, match=r"cannot load .*clip\.onnx"):
        create("onnxruntime", Bundle(bundle_copy, tiny.manifest)).__enter__()


def test_without_onnxruntime_the_error_says_what_to_install(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"avsbg\[cpu\]"):
        create("onnxruntime", tiny).__enter__()


class WrongShape(Backend):
    """A backend from elsewhere, whose engine returns something else than the contract says."""

    name = "wrong"

    def describe(self) -> dict[str, Any]:
        return {}

    def _open(self) -> None: ...

    def _close(self) -> None: ...

    def _run(self, inputs: Any, outputs: Any, keep: Any) -> Any:  # noqa: ARG002
        return {name: np.zeros((1, 5, 8, 8), np.float32) for name in outputs}


def test_a_registered_backend_is_created_and_its_outputs_checked(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another test of the same process may have registered torch.
    monkeypatch.setattr(backends, "_BACKENDS", {"onnxruntime": backends._BACKENDS["onnxruntime"]})
    module = type(sys)("elsewhere")
    module.WrongShape = WrongShape  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    backends.register("wrong", "elsewhere:WrongShape")
    backends.register("absent", "nowhere_to_be_found:Absent")
    assert backends.names() == ("onnxruntime", "wrong", "absent")
    with create("wrong", tiny) as backend, pytest.raises(BackendError, match=r"returned logits is .*\[1, 5, 8, 8\]"):
        backend.run(tiny_bundle.inputs(1, 0))
    with pytest.raises(BackendError, match="absent cannot be imported"):
        create("absent", tiny)
