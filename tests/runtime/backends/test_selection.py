"""The backend `auto`: what it takes, what it passes over, and its cache."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from avsbg import native_library
from avsbg.runtime.backends import BackendSpec, selection
from avsbg.runtime.backends.base import Backend, Inputs, Results
from avsbg.runtime.backends.selection import list_candidates, measure_backend, select_backend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from fixtures.engines import add_engine

AUTO = BackendSpec("auto")


class Clock:
    """Seconds that pass only inside calls of `Timed`."""

    now = 0.0

    def perf_counter(self) -> float:
        return Clock.now


class Timed(Backend):
    """A call takes as long as `seconds` says for the backend's name; None cannot be opened."""

    name: ClassVar[str] = "timed"
    seconds: ClassVar[dict[str, float | None]] = {}
    opened: ClassVar[list[str]] = []

    def __init__(self, bundle: Bundle, spec: BackendSpec) -> None:
        super().__init__(bundle)
        self.spec = str(spec)

    def describe(self) -> dict[str, Any]:
        return {}

    def _open(self) -> None:
        Timed.opened.append(self.spec)
        if Timed.seconds[self.spec] is None:
            raise BackendError("it is broken.")

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:  # noqa: ARG002
        Clock.now += Timed.seconds[self.spec] or 0.0
        return {}

    def _close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Two backends that could run, a clock of their own and an empty cache."""
    monkeypatch.setenv("AVSBG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(selection, "time", Clock())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(native_library, "_folders", lambda: [Path("/nowhere")])
    Timed.seconds = {"onnxruntime:function": 0.2, "openvino": 0.1}
    Timed.opened = []
    yield
    Clock.now = 0.0


def choose(bundle: Bundle, asked: BackendSpec = AUTO, **options: Any) -> selection.Selection:
    return select_backend(bundle, asked, lambda spec: Timed(bundle, spec), options=options)


def test_the_fastest_is_taken_and_the_rest_has_reasons(tiny: Bundle) -> None:
    found = choose(tiny)
    assert found.backend == "openvino"
    assert found.seconds == {"onnxruntime:function": pytest.approx(0.2), "openvino": pytest.approx(0.1)}
    assert "no native libraries" in found.passed_over["onnxruntime:native"]
    assert {"onnxruntime-cuda", "tensorrt", "tensorrt-rtx"} < found.passed_over.keys()
    text = str(found)
    assert text.startswith(
        "auto took openvino, by the time of one clip (measured): onnxruntime:function 200 ms, openvino"
    )
    assert "tensorrt, tensorrt-rtx (" in text  # a reason that several share is said once


def test_a_measurement_is_cached_for_the_bundle_and_the_options(tiny: Bundle, tiny_stream: Bundle) -> None:
    choose(tiny)
    assert len(Timed.opened) == 2
    again = choose(tiny)
    assert (again.backend, again.source, len(Timed.opened)) == ("openvino", "cached", 2)
    choose(tiny, threads=1)
    assert len(Timed.opened) == 4
    Timed.seconds = {"onnxruntime": 0.2, "openvino": 0.3}  # its graphs hold no operator of ours
    assert choose(tiny_stream).backend == "onnxruntime"


def test_a_damaged_cache_is_measured_anew(tiny: Bundle, tmp_path: Path) -> None:
    choose(tiny)
    (path,) = (tmp_path / "cache").iterdir()
    for text in ("", "[]", '{"backend": "torch"}', json.dumps({"backend": "torch", "seconds": {}, "refused": {}})):
        path.write_text(text)
        assert choose(tiny).source == "measured"
    assert choose(tiny).source == "cached"


def test_an_unwritable_cache_is_said_and_no_error(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    found = choose(tiny)
    assert found.backend == "openvino"
    assert str(tmp_path / "cache") in str(found.not_cached) and "could not be cached" in str(found)


def test_what_fails_is_passed_over_with_its_error_and_tried_again(tiny: Bundle) -> None:
    Timed.seconds["openvino"] = None
    found = choose(tiny)
    assert (found.backend, found.source, found.not_cached) == ("onnxruntime:function", "measured", None)
    assert found.passed_over["openvino"] == "it is broken."
    Timed.seconds["openvino"] = 0.1
    assert (choose(tiny).backend, choose(tiny).source) == ("openvino", "cached")


def test_another_build_of_a_native_library_is_measured_anew(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_library, "_folders", lambda: [tmp_path])
    Timed.seconds = {"onnxruntime:native": 0.2, "openvino": 0.3}
    for paths in ("avx2", "avx512"):
        (tmp_path / "library.so").write_text("built")
        built = {"onnxruntime": {"file": "library.so", "paths": paths}}
        (tmp_path / "native.json").write_text(json.dumps({"built": built, "skipped": {}}))
        assert [choose(tiny).source for _ in range(2)] == ["measured", "cached"]
        Timed.seconds = {"onnxruntime:native": 0.2, "openvino": 0.1}
    assert choose(tiny).backend == "openvino"
    (tmp_path / "library.so").write_text("built again")
    assert choose(tiny).source == "measured"


def test_a_backend_that_is_named_is_measured_once(tiny: Bundle) -> None:
    Timed.seconds = {"openvino": 0.3}
    with Timed(tiny, BackendSpec("openvino")) as backend:
        measure = partial(measure_backend, tiny, "openvino", backend, role="clip", options={})
        assert measure() == pytest.approx(0.3)
        Timed.seconds = {"openvino": 0.5}
        assert measure() == pytest.approx(0.3)  # as cached


def test_none_that_can_run_is_an_error_with_every_reason(tiny: Bundle) -> None:
    Timed.seconds = dict.fromkeys(Timed.seconds)
    with pytest.raises(BackendError, match=r"no backend can run .*openvino: it is broken"):
        choose(tiny)


def test_the_only_one_is_not_measured(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    found = choose(tiny)
    assert (found.backend, found.seconds, Timed.opened) == ("onnxruntime:function", {}, [])
    assert "not installed" in found.passed_over["openvino"]


def test_a_precision_is_that_of_every_candidate(tiny: Bundle) -> None:
    found, _ = list_candidates(tiny, BackendSpec.parse("auto:bf16"), "clip")
    assert [str(spec) for spec in found] == ["onnxruntime:function:bf16", "openvino:bf16"]
    found, _ = list_candidates(tiny, BackendSpec.parse("auto:rest-fp16"), "clip")  # each will say that it needs one
    assert [spec.rest for spec in found] == ["fp16", "fp16"]


def test_an_engine_that_is_named_decides(bundle_copy: Path) -> None:
    add_engine(bundle_copy, "clip.fp16")
    assert choose(Bundle.open(bundle_copy), engine="clip.fp16").backend == "tensorrt"
    assert Timed.opened == []


def test_engines_are_candidates_in_their_precision_where_there_is_a_gpu(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avsbg.runtime.device.gpu import CudaDriver

    add_engine(bundle_copy, "clip.fp16")
    monkeypatch.setattr(selection, "read_cuda_driver", lambda: CudaDriver("13.0", None))
    bundle = Bundle.open(bundle_copy)
    in_fp32, passed_over = list_candidates(bundle, AUTO, "clip")
    assert [spec.backend for spec in in_fp32] == ["onnxruntime", "openvino", "onnxruntime-cuda"]
    assert passed_over["tensorrt"] == "the bundle holds no engine of it in fp32"
    in_fp16, _ = list_candidates(bundle, BackendSpec.parse("auto:fp16"), "clip")
    assert "tensorrt" in [spec.backend for spec in in_fp16]
    on_gpu, _ = list_candidates(bundle, AUTO, "clip", "cuda:0")
    assert [spec.backend for spec in on_gpu] == ["onnxruntime-cuda"]
