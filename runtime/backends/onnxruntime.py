"""ONNX Runtime: executes a graph with the operator as its ONNX function body, as our native kernel, or written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends.base import Arrays, Backend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.native_library import native_library
from avsbg.runtime.onnxruntime_operator import register

# Which form of the graph each choice of operator executes.
_FORMS = {"function": "custom", "native": "custom", "plain": "plain"}


class OnnxRuntimeBackend(Backend):
    """Executes a graph with ONNX Runtime.

    Args:
        bundle: an open bundle.
        graph: the graph's name; `operator="plain"` executes the one named `<graph>.plain`.
        operator: `function` (the operator's ONNX function body), `native` (our kernel) or
            `plain` (standard operators only). By default what the graph allows without a library.
        provider: the execution provider; a session that gets another one is an error.
        threads: threads within an operator; by default ONNX Runtime's choice (the physical cores).
        clips: fix the number of clips, which lets ONNX Runtime plan memory and lay out weights ahead.

    Raises:
        BackendError: `operator` is unknown or contradicts the graph, or a number is out of range.
        NativeLibraryError: `operator` is `native` and the library was not built; says why.
    """

    name: ClassVar[str] = "onnxruntime"

    def __init__(
        self,
        bundle: Bundle,
        graph: str = "clip",
        *,
        operator: str | None = None,
        provider: str = "CPUExecutionProvider",
        threads: int | None = None,
        clips: int | None = None,
    ) -> None:
        if operator not in (None, *_FORMS):
            raise BackendError(f"unknown operator form {operator!r}.", f"Choose one of: {', '.join(_FORMS)}.")
        if operator == "plain" and bundle.graph(graph).operator != "plain":
            graph = f"{graph}.plain"
        super().__init__(bundle, graph)
        if operator is None:
            operator = "plain" if self.contract.operator == "plain" else "function"
        if _FORMS[operator] != self.contract.operator:
            raise BackendError(
                f"the graph {graph} holds no custom operator, so the operator form {operator!r} has nothing to execute."
            )
        if operator == "native":
            native_library("onnxruntime")
        for option, value in (("threads", threads), ("clips", clips)):
            if value is not None and value < 1:
                raise BackendError(f"{option} must be at least 1, not {value}.")
        self._operator = operator
        self._provider = provider
        self._threads = threads
        self._clips = clips
        self._kernel: str | None = None
        self._session: Any = None

    def describe(self) -> dict[str, Any]:
        """What runs: providers as the session reports them, `kernel` the native operator's instruction set."""
        import onnxruntime

        return {
            "backend": self.name,
            "version": onnxruntime.__version__,
            "graph": self.graph,
            "operator": self._operator,
            "kernel": self._kernel,
            "providers": self._session.get_providers(),
            "threads": self._session.get_session_options().intra_op_num_threads or "default",
            "clips": self._clips or "dynamic",
        }

    def _open(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                f"ONNX Runtime cannot be imported: {error}.", "Install it with `pip install 'avsbg[cpu]'`."
            ) from error
        available = onnxruntime.get_available_providers()
        if self._provider not in available:
            raise BackendError(
                f"ONNX Runtime {onnxruntime.__version__} has no {self._provider}.", f"It has: {', '.join(available)}."
            )
        path = self.bundle.file(self.contract.file)
        try:
            session = onnxruntime.InferenceSession(str(path), self._options(onnxruntime), providers=[self._provider])
        except Exception as error:  # ONNX Runtime's exceptions share no base class.
            raise BackendError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error
        # Asked for a provider that cannot start, ONNX Runtime carries on with the CPU.
        if session.get_providers()[0] != self._provider:
            raise BackendError(f"asked for {self._provider}, ONNX Runtime chose {', '.join(session.get_providers())}.")
        self._session = session

    def _options(self, onnxruntime: Any) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if self._clips is not None:
            for symbol in {tensor.shape[0] for tensor in self.contract.inputs if isinstance(tensor.shape[0], str)}:
                options.add_free_dimension_override_by_name(symbol, self._clips)
        if self._operator == "native":
            self._kernel = register(options)
        return options

    def _run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        feed = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            results = self._session.run(list(outputs), feed)
        except Exception as error:
            raise BackendError(f"ONNX Runtime failed on the graph {self.graph}: {error}") from error
        return dict(zip(outputs, results, strict=True))

    def _close(self) -> None:
        self._session = None
