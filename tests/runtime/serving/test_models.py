"""The model of streams of Triton's Python backend, without a server: its module for models is played."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.media.log_mel import PATCH_SAMPLES
from avsbg.runtime.segment.model import Model
from avsbg.runtime.serving.models import StreamModel
from fixtures.stream_bundle import frame

STREAMS = 3


@pytest.fixture
def model(tiny_stream: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamModel]:
    utils = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(as_numpy=lambda: request.inputs[name]),
        Tensor=lambda name, array: (name, array),
        TritonError=str,
        InferenceResponse=lambda output_tensors, error=None: SimpleNamespace(outputs=dict(output_tensors), error=error),
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    served = StreamModel()
    with Model(tiny_stream, "onnxruntime", threads=1) as served._model:
        served._config = {"sequence_batching": {"oldest": {"max_candidate_sequences": str(STREAMS)}}}
        served._open()
        yield served


def request(sequence: int, value: int = 0, *, start: bool = False, end: bool = False, parameters: str = "") -> object:
    inputs = {"frames": frame(value)[None], "waveform": np.zeros((1, PATCH_SAMPLES), np.float32)}
    inputs |= {"START": np.array([[start]]), "END": np.array([[end]])}
    return SimpleNamespace(
        inputs=inputs,
        correlation_id=lambda: sequence,
        parameters=lambda: parameters,
        requested_output_names=lambda: ["logits", "valid"],
    )


def told(response: SimpleNamespace) -> tuple[bool, int]:
    assert response.error is None, response.error
    return bool(response.outputs["valid"]), int(response.outputs["logits"][0, 0, 0])


def test_an_end_that_is_refused_ends_its_stream_all_the_same(model: StreamModel) -> None:
    """The server gives its place to another stream; kept, it would push out one that goes on."""
    assert told(model.execute([request(9, 90, start=True)])[0]) == (False, 0)
    for number in range(1, STREAMS):
        model.execute([request(number, start=True)])
        (refused,) = model.execute([request(number, end=True, parameters='{"timestamp": "soon"}')])
        assert "could not convert string to float: 'soon'" in refused.error
        assert len(model._streams) == 1
    for number in range(1, STREAMS):
        model.execute([request(number, start=True)])
    assert told(model.execute([request(9, 91)])[0]) == (True, 91_090)


def test_a_beginning_that_is_refused_ends_what_had_its_number(model: StreamModel) -> None:
    for parameters, problem in (('{"timestamp": "soon"}', "'soon'"), ('{"timestamp": Infinity}', "not inf")):
        model.execute([request(1, 10, start=True)])
        (refused,) = model.execute([request(1, 20, start=True, parameters=parameters)])
        assert problem in refused.error
        (lost,) = model.execute([request(1, 21)])
        assert "the stream 1 has not begun" in lost.error


def test_streams_that_end_while_the_network_fails_have_ended(
    model: StreamModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.execute([request(1, 10, start=True), request(2, 20, start=True)])

    def fail(*_: object) -> None:
        raise BackendError("the device is lost.")

    model.execute([request(3, 30, start=True)])
    with monkeypatch.context() as patched:
        patched.setattr(model._streams._encode, "run", fail)
        responses = model.execute([request(1, end=True), request(2, 21), request(3, 31, start=True)])
    assert [response.error for response in responses] == ["the device is lost."] * 3
    assert len(model._streams) == 1
    assert told(model.execute([request(2, 22)])[0]) == (True, 22_020)
    # The number may have been another client's.
    assert "the stream 3 has not begun" in model.execute([request(3, 32)])[0].error
