"""Models for Triton's Python backend, which names the class of a `model.py` `TritonPythonModel`.

`triton_python_backend_utils` is a module that the server brings; it exists in its processes alone.
See https://github.com/triton-inference-server/python_backend.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from avsbg.errors import AvsbgError
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.segment.model import Model
from avsbg.runtime.serving.config import BUNDLE, END, FRAME, START, TIMESTAMP, VALID
from avsbg.runtime.serving.sequences import SequenceMask, SequenceRequest, SequenceSegmenter


class _ServedModel:
    """A bundle's network on the backend that the configuration names."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle; the server calls it once, and refuses the model if it raises."""
        self._config = json.loads(args["model_config"])
        given = {key: one["string_value"] for key, one in self._config.get("parameters", {}).items()}
        options: dict[str, Any] = {"threads": int(given["threads"])} if "threads" in given else {}
        if args.get("model_instance_kind") == "GPU":
            options["device"] = f"cuda:{args['model_instance_device_id']}"
        bundle = Bundle.open(Path(args["model_repository"]) / args["model_version"] / BUNDLE)
        self._model = Model(bundle, given["backend"], **options)
        self._open()

    def finalize(self) -> None:
        """Close the backends."""
        self._model.close()

    def _open(self) -> None:
        raise NotImplementedError


class ClipModel(_ServedModel):
    """Whole clips: the requests that the server's batcher hands on together are computed in one call."""

    def _open(self) -> None:
        self._backend = self._model.clip_backend

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response to each request, in order."""
        import triton_python_backend_utils as utils

        names = [tensor.name for tensor in self._backend.contract.inputs]
        arrays = [{name: _read(utils, one, name) for name in names} for one in requests]
        wanted = sorted({name for one in requests for name in one.requested_output_names()})
        try:
            inputs = {name: np.concatenate([one[name] for one in arrays]) for name in names}
            outputs = self._backend.run(inputs, wanted)
        except AvsbgError as error:
            return [_refuse(utils, error) for _ in requests]
        responses, first = [], 0
        for request, own in zip(requests, arrays, strict=True):
            rows = slice(first, first + len(own["frames"]))
            first = rows.stop
            mine = {name: outputs[name][rows] for name in request.requested_output_names()}
            responses.append(utils.InferenceResponse(output_tensors=_tensors(utils, mine)))
        return responses


class StreamModel(_ServedModel):
    """Streams: the server's sequence batcher hands on at most one frame of each.

    The response to a frame holds the mask of the frame before it (`valid` says whether there is one), and the response
    to the request with END, whose frame is not looked at, that of the last. `frame` and `timestamp` say which frame the
    mask is of; tensors, since the Python backend sets no parameters of a response before Triton's versions of 2025. A
    request may have the parameter `timestamp`, in seconds.
    """

    def _open(self) -> None:
        pair = self._model.stream_backend
        self._contract = pair.encode.contract
        self._outputs = {tensor.name: tensor for tensor in pair.decode.contract.outputs}
        capacity = int(self._config["sequence_batching"]["oldest"]["max_candidate_sequences"])
        self._streams = SequenceSegmenter(pair.encode, pair.decode, capacity, list(self._outputs))

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response to each request, in order."""
        import triton_python_backend_utils as utils

        responses: list[Any] = [None] * len(requests)
        steps: list[tuple[int, SequenceRequest]] = []
        for place, request in enumerate(requests):
            start, end = (_read(utils, request, name).item() for name in (START, END))
            sequence = request.correlation_id()  # a number or a text; in the server's tensor, a text is any number
            try:
                timestamp = json.loads(request.parameters() or "{}").get("timestamp")
                inputs = {tensor.name: _read(utils, request, tensor.name) for tensor in self._contract.inputs}
                seconds = None if timestamp is None else float(timestamp)
            except (ValueError, TypeError) as error:
                if start or end:  # for the server it has, and a stream that it has ended is never named again
                    self._streams.forget(sequence)
                responses[place] = _refuse(utils, error)
            else:
                steps.append((place, SequenceRequest(sequence, inputs, start, end, seconds)))
        try:
            results: Iterable[Any] = self._streams.step([one for _, one in steps])
        except AvsbgError as error:
            results = [error] * len(steps)
        for (place, _), result in zip(steps, results, strict=True):
            wanted = requests[place].requested_output_names()
            failed = isinstance(result, AvsbgError)
            responses[place] = _refuse(utils, result) if failed else self._respond(utils, wanted, result)
        return responses

    def _respond(self, utils: Any, wanted: Iterable[str], mask: SequenceMask | None) -> Any:
        arrays = {
            VALID: np.full((1, 1), mask is not None),
            FRAME: np.full((1, 1), -1 if mask is None else mask.index, np.int64),
            TIMESTAMP: np.full((1, 1), np.nan if mask is None else mask.timestamp),
        }
        for name, tensor in self._outputs.items():
            arrays[name] = np.zeros(tensor.single_shape, tensor.dtype) if mask is None else mask.outputs[name]
        return utils.InferenceResponse(output_tensors=_tensors(utils, {name: arrays[name] for name in wanted}))


def _read(utils: Any, request: Any, name: str) -> Any:
    return utils.get_input_tensor_by_name(request, name).as_numpy()


def _tensors(utils: Any, arrays: dict[str, Any]) -> list[Any]:
    return [utils.Tensor(name, np.ascontiguousarray(array)) for name, array in arrays.items()]


def _refuse(utils: Any, error: Exception) -> Any:
    return utils.InferenceResponse(output_tensors=[], error=utils.TritonError(str(error)))
