"""What every backend has in common: it owns its resources, and it checks arrays against the graph's contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from avsbg.runtime.backends.device_tensor import DeviceTensor
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import TensorRecord
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError

if TYPE_CHECKING:
    from typing_extensions import Self
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
# What a backend takes, and returns where outputs are kept.
Inputs = Mapping[str, NDArray[Any] | DeviceTensor]
Results = dict[str, NDArray[Any] | DeviceTensor]


class Backend(ABC):
    """Executes one graph of a bundle. Use it as a context manager; resources live inside the `with` block.

    A subclass sets `name` and implements `_open`, `_run`, `_close` and `describe`. Its constructor takes the bundle,
    the graph's name and keyword options, and raises `BackendError` rather than run something other than was asked for.

    Attributes:
        name: how users name the backend.
        graph: the name of the graph it executes.
        contract: that graph's record, with the inputs that `run` accepts and the outputs it returns.
        gate: what is known of what its precision costs (`avsbg.runtime.backends.gate`); empty where nothing is.
    """

    name: ClassVar[str]

    def __init__(self, bundle: Bundle, graph: str = "clip") -> None:
        self.bundle = bundle
        self.graph = graph
        self.contract = bundle.graph(graph)
        self.gate: dict[str, Any] = {}
        self._is_open = False

    def __enter__(self) -> Self:
        self._open()
        self._is_open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        self._close()

    @overload
    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> Arrays: ...

    @overload
    def run(self, inputs: Inputs, outputs: Sequence[str] | None = None, *, keep: Collection[str]) -> Results: ...

    def run(
        self, inputs: Inputs, outputs: Sequence[str] | None = None, *, keep: Collection[str] = ()
    ) -> Arrays | Results:
        """Execute the graph once.

        Args:
            inputs: an array for each input of `contract`, of exactly its dtype and shape; dimensions that the contract
                names (`clips`) may have any size, the same one wherever the name occurs. Arrays that a backend of the
                same class kept on the same device are taken where they are.
            outputs: the names wanted; all of them if None.
            keep: those of them that stay where they are computed, to be passed to another backend.

        Returns:
            The outputs by name: arrays of the host, and those in `keep` as `DeviceTensor`.

        Raises:
            BackendError: the backend is not open, a name, dtype or shape is not the contract's, a kept array was
                released or is another backend's, or execution failed.
        """
        if not self._is_open:
            raise BackendError(f"the backend {self.name} is not open.", "Use it in a `with` block.")
        symbols = self._check_inputs(inputs)
        known = [tensor.name for tensor in self.contract.outputs]
        wanted = known if outputs is None else list(outputs)
        if unknown := [name for name in (*wanted, *keep) if name not in known]:
            raise BackendError(f"the graph {self.graph} has no output {unknown[0]!r}.", f"It has: {', '.join(known)}.")
        if unwanted := [name for name in keep if name not in wanted]:
            raise BackendError(f"{unwanted[0]} is to be kept, but is not among the outputs that were asked for.")
        results = self._run(inputs, wanted, keep)
        for tensor in self.contract.outputs:
            if tensor.name in results:
                _check_array(f"the backend {self.name} returned {tensor.name}", results[tensor.name], tensor, symbols)
        return results

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What really runs, read back from the engine where it can be: versions, devices, threads, the operator's form.

        JSON values only; to be called while the backend is open.
        """

    @abstractmethod
    def _open(self) -> None:
        """Acquire what execution needs."""

    @abstractmethod
    def _run(self, inputs: Inputs, outputs: Sequence[str], keep: Collection[str]) -> Results:
        """Execute; names, dtypes and shapes have been checked, but not whose the kept inputs are."""

    @abstractmethod
    def _close(self) -> None:
        """Release what `_open` acquired."""

    def _refuse_resident(self, name: str, why: str) -> BackendError:
        """The error for a kept input that this backend cannot take."""
        return BackendError(f"the backend {self.name} cannot take the kept array {name}: {why}.", "Pass its numpy().")

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
            raise BackendError(
                f"the graph {self.graph} takes the inputs {', '.join(expected)}, not {', '.join(inputs) or 'none'}."
            )
        symbols: dict[str, int] = {}
        for name, tensor in expected.items():
            _check_array(f"the input {name}", inputs[name], tensor, symbols)
        return symbols


def converted_graph(bundle: Bundle, graph: str, precision: Precision) -> str:
    """The name of the graph that `avsbg convert` made of another in a precision.

    Raises:
        BackendError: the bundle has none; says how to make it.
    """
    name = str(GraphName.parse(graph).converted(precision))
    if name not in bundle.manifest.graphs:
        raise BackendError(
            f"{bundle.path} has no graph {name!r}.",
            f"Make it with `avsbg convert {bundle.path} --precision {precision}`. It has: "
            f"{', '.join(bundle.manifest.graphs)}.",
        )
    return name


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
        shape = ", ".join(
            f"{dimension}={symbols[dimension]}" if dimension in symbols else str(dimension)
            for dimension in tensor.shape
        )
        raise BackendError(
            f"{what} is {array.dtype} {list(array.shape)}; the graph's contract is {tensor.dtype} [{shape}]."
        )
