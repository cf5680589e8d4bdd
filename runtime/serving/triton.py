"""Triton Inference Server: clips sent to a model that `avsbg serve triton` made, over gRPC.

The client library is https://github.com/triton-inference-server/client (`tritonclient`).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends.base import Arrays, Backend, DeviceTensor, Inputs, Results
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import TensorRecord
from avsbg.runtime.errors import BackendError
from avsbg.runtime.serving.config import VALID
from avsbg.runtime.streaming.frame_pair import frame_inputs

SYNTAX = "triton:grpc://HOST:PORT/MODEL or, encrypted, triton:grpcs://HOST:PORT/MODEL"
TIMEOUT = 60.0  # seconds
# Secrets that must not be in a command line: a token, and the files of TLS in PEM form.
TOKEN, ROOTS, KEY, CHAIN = (f"AVSBG_TRITON_{name}" for name in ("TOKEN", "CA", "KEY", "CERTIFICATE"))
_MODEL = re.compile(r"[\w.-]+")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")


class TritonBackend(Backend):
    """Executes clips on a server, by its model of clips or, frame by frame, by its model of streams.

    The server's model must take and return what the bundle's graphs do. A token in `AVSBG_TRITON_TOKEN` is sent as
    `authorization: Bearer TOKEN`; `AVSBG_TRITON_CA`, `_KEY` and `_CERTIFICATE` name the files of an encrypted
    connection: the roots to trust in place of the system's, and a client's own key and certificate.

    Args:
        graph: `clip`.
        address: `grpc://HOST:PORT/MODEL` or `grpcs://...`, with `?timeout=SECONDS` for another limit of one request.

    Raises:
        BackendError: the address is none, a token would be sent unencrypted to another machine, or another graph is
            asked for.
    """

    name: ClassVar[str] = "triton"

    def __init__(self, bundle: Bundle, graph: str = "clip", *, address: str = "") -> None:
        super().__init__(bundle, graph)
        if GraphName.parse(graph).role != "clip":
            hint = "Name the server's model of streams in place of its model of clips: it takes clips frame by frame."
            raise BackendError(f"the backend triton takes whole clips, not the graph {graph}.", hint)
        try:
            parts = urlsplit(address)
            host, port, model = parts.hostname, parts.port, parts.path.strip("/")
            self._timeout = float(parse_qs(parts.query, strict_parsing=bool(parts.query)).get("timeout", [TIMEOUT])[0])
        except ValueError as error:
            raise BackendError(f"{address!r} is no address of a server: {error}.", f"Write {SYNTAX}.") from error
        if (
            parts.scheme not in ("grpc", "grpcs")
            or not host
            or port is None
            or not _MODEL.fullmatch(model)
            or not self._timeout > 0
        ):
            raise BackendError(f"{address!r} is no address of a server's model.", f"Write {SYNTAX}.")
        self._encrypted = parts.scheme == "grpcs"
        self._place, self.model = f"[{host}]:{port}" if ":" in host else f"{host}:{port}", model
        token = os.environ.get(TOKEN)
        if token and not self._encrypted and not _LOOPBACK.fullmatch(host):
            raise BackendError(f"the token in {TOKEN} would go to {host} unencrypted.", "Use grpcs:// in the address.")
        self._headers = {"authorization": f"Bearer {token}"} if token else None
        self._client: Any = None
        self._config: dict[str, Any] = {}
        self._server: dict[str, Any] = {}

    @property
    def is_stream(self) -> bool:
        """Whether the server's model takes a frame of a stream with each request."""
        return "sequence_batching" in self._config

    def describe(self) -> dict[str, Any]:
        """The server, and what its model's configuration says of how it executes the graph."""
        told = {key: one.get("string_value") for key, one in self._config.get("parameters", {}).items()}
        return {
            "backend": self.name,
            "version": self._server.get("version"),
            "graph": self.graph,
            "operator": None,
            "precision": told.get("precision", self.contract.precision),
            "threads": "server",
            "clips": "dynamic",
            "server": self._place,
            "model": self.model,
            "executes": {"platform": self._config.get("backend") or self._config.get("platform"), **told},
        }

    def _open(self) -> None:
        try:
            from tritonclient import grpc
        except ImportError as error:
            hint = "Install it with `pip install 'avsbg[serve]'`."
            raise BackendError(f"Triton's client cannot be imported: {error}.", hint) from error
        files = {name: os.environ.get(name) for name in (ROOTS, KEY, CHAIN)}
        for name, file in files.items():
            if file and not Path(file).is_file():
                raise BackendError(f"{name} names {file}, which is no file.")
        self._client = grpc.InferenceServerClient(
            self._place,
            ssl=self._encrypted,
            root_certificates=files[ROOTS],
            private_key=files[KEY],
            certificate_chain=files[CHAIN],
        )
        try:
            self._server = self._ask("get_server_metadata", as_json=True)
            self._config = self._ask("get_model_config", self.model, as_json=True)["config"]
            self._check_contract()
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        if device_outputs:
            raise BackendError("a server returns its outputs to the host and has no device outputs.")
        arrays: Arrays = {}
        for name, one in inputs.items():
            if isinstance(one, DeviceTensor):
                raise self._reject(name, "it lies on a device of this machine")
            arrays[name] = one
        step = 1 if self.is_stream else max(1, int(self._config.get("max_batch_size", 1)))
        run = self._run_stream if self.is_stream else self.infer
        parts = [
            run({name: array[first : first + step] for name, array in arrays.items()}, outputs)
            for first in range(0, len(arrays["frames"]), step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def _run_stream(self, clip: Arrays, outputs: Sequence[str]) -> Arrays:
        """One clip as a stream of its own."""
        manifest_clip = self.bundle.manifest.clip
        stream = ServedStream(self, outputs)
        numbers = range(manifest_clip.frames)
        frames = [frame_inputs(clip, index, shared_sound=manifest_clip.shared_sound) for index in numbers]
        answers = [*map(stream.push, frames), stream.finish()]
        masks = [mask for mask in answers if mask is not None]
        if len(masks) != manifest_clip.frames:
            raise BackendError(f"{self.model} returned {len(masks)} masks of {manifest_clip.frames} frames.")
        return {name: np.stack([mask[name] for mask in masks], axis=1) for name in outputs}

    def infer(self, arrays: Arrays, outputs: Sequence[str], **flags: Any) -> Arrays:
        """One request; `flags` are those of a stream."""
        from tritonclient import grpc
        from tritonclient.utils import np_to_triton_dtype

        inputs = []
        for name, array in arrays.items():
            inputs.append(grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(np.ascontiguousarray(array))
        wanted = [grpc.InferRequestedOutput(name) for name in outputs]
        answer = self._ask("infer", self.model, inputs, outputs=wanted, **flags)
        found: dict[str, NDArray[Any] | None] = {name: answer.as_numpy(name) for name in outputs}
        results = {name: array for name, array in found.items() if array is not None}
        if missing := [name for name in outputs if name not in results]:
            raise BackendError(f"the model {self.model} on {self._place} returned no {missing[0]}.")
        return results

    def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the client; what goes wrong becomes a `BackendError`."""
        from tritonclient.utils import InferenceServerException

        try:
            return getattr(self._client, method)(
                *arguments, **options, headers=self._headers, client_timeout=self._timeout
            )
        except InferenceServerException as error:
            status, where = (error.status() or "").rpartition(".")[2], f"the server at {self._place}"
            reason = " ".join((error.message() or "").split())
            if status == "DEADLINE_EXCEEDED":
                hint = "It is overloaded or gone; ?timeout=SECONDS at the end of the address allows more."
                raise BackendError(f"{where} did not answer within {self._timeout:g} s.", hint) from error
            if status == "UNAVAILABLE":
                hint = "Check that it runs; one that encrypts needs grpcs:// in the address."
                if self._encrypted:
                    hint = f"Check that it runs, and the certificates that {ROOTS}, {KEY} and {CHAIN} name."
                raise BackendError(f"{where} cannot be reached: {reason}.", hint) from error
            if status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
                hint = f"The token is taken from the environment variable {TOKEN}."
                raise BackendError(f"{where} does not let this client in: {reason}.", hint) from error
            raise BackendError(f"{where} refused the model {self.model} or its request: {reason}.") from error

    def _check_contract(self) -> None:
        """Check that the server's model takes and returns what the bundle's graphs do."""
        graphs = self.bundle.manifest.graphs
        if self.is_stream and not self.bundle.manifest.has_stream:
            raise BackendError(f"{self.model} is a model of streams, and {self.bundle.path} has no graphs for them.")
        taken, given = (graphs["encode"], graphs["decode"]) if self.is_stream else (self.contract, self.contract)
        for side, records in (("input", taken.inputs), ("output", given.outputs)):
            theirs = {one["name"]: _describe(one) for one in self._config.get(side, [])}
            for record in records:
                ours = _contract(record)
                if theirs.get(record.name) != ours:
                    raise BackendError(
                        f"the model {self.model} on {self._place} has the {side} {record.name} as "
                        f"{theirs.get(record.name, 'none')}, and the bundle {self.bundle.path} as {ours}.",
                        "Serve this bundle, or name the one that is served.",
                    )


class ServedStream:
    """A stream on a server: a frame goes with each request, and its mask comes with the next.

    Args:
        backend: open on a model of streams.
        outputs: what a mask consists of.

    Raises:
        BackendError: the backend's model takes whole clips. Methods: as of `Backend.run`; the stream is then lost.
    """

    def __init__(self, backend: TritonBackend, outputs: Sequence[str] = ("probability",)) -> None:
        if not backend.is_stream:
            raise BackendError(
                f"the model {backend.model} takes whole clips.", "Name the model of streams, ...-stream."
            )
        self._backend, self._outputs = backend, list(outputs)
        self._number = secrets.randbits(62) + 1  # 0 is none
        self._last: Arrays | None = None

    def push(self, inputs: Arrays) -> Arrays | None:
        """Send the next frame, `[1, ...]` as the graph `encode` takes it; the mask of the one before, `[1, H, W]`."""
        begins, self._last = self._last is None, inputs
        return self._send(inputs, begins, ends=False)

    def finish(self) -> Arrays | None:
        """End the stream; the mask of the last frame, or None if there was none, or it had come already."""
        if self._last is None:
            return None
        blank = {name: np.zeros_like(array) for name, array in self._last.items()}
        self._last = None
        return self._send(blank, begins=False, ends=True)

    def _send(self, inputs: Arrays, begins: bool, ends: bool) -> Arrays | None:
        flags = {"sequence_id": self._number, "sequence_start": begins, "sequence_end": ends}
        answer = self._backend.infer(inputs, [*self._outputs, VALID], **flags)
        return answer if answer.pop(VALID).all() else None


def _describe(tensor: dict[str, Any]) -> str:
    kind = str(tensor.get("data_type", "")).removeprefix("TYPE_")
    return f"{kind} [{', '.join(str(size) for size in tensor.get('dims', []))}]"


def _contract(record: TensorRecord) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return f"{np_to_triton_dtype(np.dtype(record.dtype))} [{', '.join(map(str, record.shape[1:]))}]"
