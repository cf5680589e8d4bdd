"""The base of all backends: ownership of resources, checks against a graph's contract, tensors on a device."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.backends.spec import OperatorImplementation
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import TensorRecord
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError

if TYPE_CHECKING:
    from typing_extensions import Self

FAILED = "failed, overridden"


class DeviceTensor(ABC):
    """An output that stays where its backend computed it (`Backend.run(..., device_outputs=...)`).

    It may be an input of another backend of the same class on the same device, without a copy to the host. `release`
    returns its buffer, and later runs write to returned buffers before they allocate new ones: a caller that holds at
    most two at a time makes two alternate. A tensor that was `released` can no longer be read or passed on.
    """

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = shape
        self.released = False
        self._lock = threading.Lock()

    def numpy(self) -> NDArray[Any]:
        """A copy on the host; a `BackendError` once it was released."""
        self._check()
        return self._copy()

    def release(self) -> None:
        """Return the buffer; releasing twice does nothing."""
        with self._lock:
            released, self.released = self.released, True
        if not released:
            self._return_buffer()

    def _check(self) -> None:
        """Raise a `BackendError` unless it may be used."""
        if self.released:
            raise BackendError("a device tensor was used after its release.")

    @abstractmethod
    def _copy(self) -> NDArray[Any]:
        """Copy it to the host; it has not been released."""

    @abstractmethod
    def _return_buffer(self) -> None:
        """Return the buffer to its pool, or forget it; called once."""


Arrays = dict[str, NDArray[Any]]
Inputs = Mapping[str, NDArray[Any] | DeviceTensor]
Results = dict[str, NDArray[Any] | DeviceTensor]


class Backend(ABC):
    """Executes one graph of a bundle. Use it as a context manager; resources live inside the `with` block.

    A subclass sets `name` and implements `_open`, `_run`, `_close` and `describe`. Its constructor takes the bundle,
    the graph's name and keyword options, and raises `BackendError` rather than run something other than was asked for.
    What `_open` loads may still be hashed meanwhile; the backend is open when that is done.
    """

    name: ClassVar[str]  # as users write it
    OPERATORS: ClassVar[tuple[OperatorImplementation, ...]] = ()

    def __init__(self, bundle: Bundle, graph: str = "clip") -> None:
        self.bundle = bundle
        self.graph = graph
        self.contract = bundle.graph(graph)  # the inputs that `run` accepts and the outputs it returns
        self.accuracy_check: dict[str, Any] = {}  # of `check_accuracy`; empty where there is none
        self._is_open = False

    def __enter__(self) -> Self:
        try:
            self._open()
        except Exception:
            self.bundle.finish_checks(self.graph)  # a file that has changed is the reason to tell
            raise
        with ExitStack() as stack:
            stack.callback(self._close)
            self.bundle.finish_checks(self.graph)
            stack.pop_all()
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._close()

    @overload
    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> Arrays: ...

    @overload
    def run(
        self, inputs: Inputs, outputs: Sequence[str] | None = None, *, device_outputs: Collection[str]
    ) -> Results: ...

    def run(
        self, inputs: Inputs, outputs: Sequence[str] | None = None, *, device_outputs: Collection[str] = ()
    ) -> Arrays | Results:
        """Execute the graph once.

        Args:
            inputs: an array for each input of `contract`, of exactly its dtype and shape; dimensions that the contract
                names (`clips`) may have any size, the same one wherever the name occurs. Tensors that a backend of the
                same class left on the same device are taken where they are.
            outputs: the names wanted; all of them if None.
            device_outputs: those of them that stay where they are computed, to be passed to another backend.

        Returns:
            The outputs by name: arrays of the host, and those in `device_outputs` as `DeviceTensor`.

        Raises:
            BackendError: the backend is not open, a name, dtype or shape is not the contract's, a device tensor was
                released or is another backend's, or execution failed.
        """
        if not self._is_open:
            raise BackendError(f"the backend {self.name} is not open.", "Use it in a `with` block.")
        symbols = self._check_inputs(inputs)
        known = [tensor.name for tensor in self.contract.outputs]
        wanted = known if outputs is None else list(outputs)
        if unknown := [name for name in (*wanted, *device_outputs) if name not in known]:
            raise BackendError(f"the graph {self.graph} has no output {unknown[0]!r}.", f"It has: {', '.join(known)}.")
        if unwanted := [name for name in device_outputs if name not in wanted]:
            what = "is to stay on the device, but is not among the outputs that were asked for"
            raise BackendError(f"{unwanted[0]} {what}.")
        results = self._run(inputs, wanted, device_outputs)
        for tensor in self.contract.outputs:
            if tensor.name in results:
                _check_array(f"the backend {self.name} returned {tensor.name}", results[tensor.name], tensor, symbols)
        return results

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Versions, devices, threads and the operator as they really run, read back from the open engine, as JSON."""

    @abstractmethod
    def _open(self) -> None:
        """Acquire what execution needs."""

    @abstractmethod
    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        """Execute; names, dtypes and shapes have been checked, but not whose the device tensors are."""

    @abstractmethod
    def _close(self) -> None:
        """Release what `_open` acquired."""

    @classmethod
    def _check_operator(cls, operator: str | None) -> OperatorImplementation | None:
        if operator is not None and operator not in cls.OPERATORS:
            message = f"the backend {cls.name} has no implementation {str(operator)!r} of the operator."
            raise BackendError(message, f"It has: {', '.join(cls.OPERATORS)}.")
        return None if operator is None else OperatorImplementation(operator)

    def _reject(self, name: str, why: str) -> BackendError:
        """The error for a device tensor that this backend cannot take as the input `name`."""
        message = f"the backend {self.name} cannot take the device tensor {name}: {why}."
        return BackendError(message, "Pass its numpy().")

    def _output_shape(self, name: str, inputs: Inputs) -> tuple[int, ...]:
        """The shape that an output has for these (checked) inputs, for backends that allocate before they run."""
        symbols = {
            dimension: size
            for tensor in self.contract.inputs
            for dimension, size in zip(tensor.shape, inputs[tensor.name].shape, strict=True)
            if isinstance(dimension, str)
        }
        tensor = next(tensor for tensor in self.contract.outputs if tensor.name == name)
        return tuple(symbols[size] if isinstance(size, str) else size for size in tensor.shape)

    def _check_inputs(self, inputs: Inputs) -> dict[str, int]:
        expected = {tensor.name: tensor for tensor in self.contract.inputs}
        if set(inputs) != set(expected):
            given = ", ".join(inputs) or "none"
            raise BackendError(f"the graph {self.graph} takes the inputs {', '.join(expected)}, not {given}.")
        symbols: dict[str, int] = {}
        for name, tensor in expected.items():
            _check_array(f"the input {name}", inputs[name], tensor, symbols)
        return symbols


def check_accuracy(what: str, accuracy: AccuracyRecord | None, *, allow_failed: bool) -> dict[str, Any]:
    """Refuse an engine or graph (`what`) whose precision costs more than its accuracy threshold allows.

    `accuracy` is None where the cost was not measured; `allow_failed` runs it in place of a `BackendError`. Returns,
    for the record of a run, `gate`: `passed`, `not measured` or `failed, overridden`, with the figures.
    """
    if accuracy is None:
        return {"gate": "not measured"}
    figures: dict[str, Any] = {
        "miou": accuracy.miou,
        "least_miou": accuracy.min_miou,
        "flipped": accuracy.flipped,
        **({"emulated": True} if accuracy.emulated else {}),
        **({"judged_clips": accuracy.measured_on.clips} if accuracy.measured_on else {}),
    }
    if accuracy.passed:
        return {"gate": "passed", **figures}
    if not allow_failed:
        how = " (emulated)" if accuracy.emulated else ""
        clips = accuracy.measured_on
        whose = "PyTorch's" if clips is None else f"the float32 graph's on {clips.clips} clips"
        raise BackendError(
            f"{what} missed its accuracy threshold: its masks have a mean IoU of {accuracy.miou:.4f} with {whose}{how}"
            f", and {accuracy.min_miou:g} is demanded; {accuracy.flipped:.2%} of the pixels flip.",
            "Use a higher precision, measure on your own clips (quantize --accuracy), or run it with "
            "--allow-failed-accuracy.",
        )
    return {"gate": FAILED, **figures}


def accuracy_warning(text: str, check: Mapping[str, Any]) -> str | None:
    """The warning where the backend `text` runs although it missed its accuracy threshold, by its `accuracy_check`."""
    if check.get("gate") != FAILED:
        return None
    figures = f"mean IoU of its masks {check['miou']:.4f}, demanded {check['least_miou']:g}"
    return f"{text} runs although it missed its accuracy threshold: {figures}."


def converted_graph(bundle: Bundle, graph: str, precision: Precision) -> str:
    """The name of the graph that `avsbg quantize` made of another; a `BackendError` that says how to, if it did not."""
    name = str(GraphName.parse(graph).converted(precision))
    if name not in bundle.manifest.graphs:
        have = ", ".join(bundle.manifest.graphs)
        hint = f"Make it with `avsbg quantize {bundle.path} --precision {precision}`. It has: {have}."
        raise BackendError(f"{bundle.path} has no graph {name!r}.", hint)
    return name


def check_counts(**counts: int | None) -> None:
    """Raise a `BackendError` for a numeric option that is below 1."""
    for option, value in counts.items():
        if value is not None and value < 1:
            raise BackendError(f"{option} must be at least 1, not {value}.")


def _check_array(what: str, array: NDArray[Any] | DeviceTensor, tensor: TensorRecord, symbols: dict[str, int]) -> None:
    """Check dtype and shape; the sizes of symbolic dimensions are collected in, and held against, `symbols`."""
    if not isinstance(array, np.ndarray | DeviceTensor):
        raise BackendError(f"{what} is a {type(array).__name__}, not a numpy array.")
    if isinstance(array, DeviceTensor) and array.released:
        raise BackendError(f"{what} was released: its buffer may hold something else by now.")
    matches = array.dtype.name == tensor.dtype and len(array.shape) == len(tensor.shape)
    for size, dimension in zip(array.shape, tensor.shape, strict=False):
        wanted = symbols.setdefault(dimension, size) if isinstance(dimension, str) else dimension
        matches = matches and size == wanted
    if not matches:
        shape = ", ".join(f"{size}={symbols[size]}" if size in symbols else str(size) for size in tensor.shape)
        contract = f"{tensor.dtype} [{shape}]"
        raise BackendError(f"{what} is {array.dtype} {list(array.shape)}; the graph's contract is {contract}.")
