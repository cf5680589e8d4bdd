"""The runtime half of TensorRT's Python interface, as documented, around a function that computes the outputs.

An attribute that the real classes lack is an AttributeError here too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tests_cuda import FakeDevice, Misuse

Compute = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(enum.Enum):
    DEVICE, HOST = range(2)


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4 = range(10)


_NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.UINT8: np.uint8}


@dataclass(frozen=True)
class Tensor:
    """An input or output: its type, its shape with -1 for the batch, and of an input the profiles' batches."""

    name: str
    dtype: DataType
    shape: tuple[int, ...]
    profiles: tuple[tuple[int, int, int], ...] = ()
    location: TensorLocation = TensorLocation.DEVICE


@dataclass
class Behaviour:
    """What the fake engines of a test do.

    Attributes:
        device: where they run.
        tensors: their inputs and outputs.
        compute: the outputs from the inputs.
        refuse: the next steps are refused, with that message.
        no_context: an execution context cannot be made.
        capture_error: a step calls something that cannot be captured.
        capturable: for TensorRT for RTX: the answers of `is_stream_capturable`; None where the method does not exist.
        log: the logger of the runtime.
    """

    device: FakeDevice
    tensors: tuple[Tensor, ...]
    compute: Compute
    refuse: str | None = None
    no_context: bool = False
    capture_error: bool = False
    capturable: list[bool] | None = None
    log: Any = None
    contexts: list[Any] = field(default_factory=list)


class ExecutionContext:
    def __init__(self, behaviour: Behaviour) -> None:
        self._b = behaviour
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._profile = 0
        self._changes = 0
        self._warm = False
        self._busy = False
        behaviour.contexts.append(self)
        if behaviour.capturable is not None:
            self.is_stream_capturable = lambda _: behaviour.capturable.pop(0) if behaviour.capturable else True

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in self._b.device.streams
        self._profile, self._shapes, self._warm = profile_index, {}, False
        self._changes += 1
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._b.device.at(memory)
        self._addresses[name] = memory
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        tensor = next(tensor for tensor in self._b.tensors if tensor.name == name and tensor.profiles)
        low, _, high = tensor.profiles[self._profile]
        if not low <= shape[0] <= high or tuple(shape[1:]) != tensor.shape[1:]:
            return False
        self._shapes[name] = tuple(shape)
        self._changes += 1
        return True

    def infer_shapes(self) -> list[str]:
        return [tensor.name for tensor in self._b.tensors if tensor.profiles and tensor.name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        tensor = next(tensor for tensor in self._b.tensors if tensor.name == name)
        batch = next(iter(self._shapes.values()))[0]
        return tuple(batch if size == -1 else size for size in tensor.shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        b = self._b
        if self.infer_shapes() or len(self._addresses) != len(b.tensors):
            raise Misuse("a step is enqueued before its shapes and addresses are set")
        if self._busy:
            raise Misuse("two threads use one execution context")
        if b.refuse is not None:
            b.log.log(1, b.refuse)
            return False
        if b.device.capturing(stream_handle):
            if not self._warm:
                raise Misuse("a step is captured that never ran: plugins and lazy loading need a run before")
            if b.capture_error:
                b.device.streams[stream_handle].capture_failed = True
                return True
            changes = self._changes
            b.device.holds_while(lambda: self._changes == changes)
        self._warm = True
        self._busy = True
        shapes = {tensor.name: self.get_tensor_shape(tensor.name) for tensor in b.tensors}
        addresses = dict(self._addresses)

        def work() -> None:
            def view(tensor: Tensor) -> np.ndarray:
                dtype = np.dtype(_NUMPY[tensor.dtype])
                nbytes = int(np.prod(shapes[tensor.name])) * dtype.itemsize
                return b.device.at(addresses[tensor.name]).content[:nbytes].view(dtype).reshape(shapes[tensor.name])

            results = b.compute({tensor.name: view(tensor) for tensor in b.tensors if tensor.profiles})
            for tensor in b.tensors:
                if not tensor.profiles:
                    view(tensor)[...] = results[tensor.name]

        b.device.enqueue(
            stream_handle,
            work,
            [addresses[tensor.name] for tensor in b.tensors if tensor.profiles],
            [addresses[tensor.name] for tensor in b.tensors if not tensor.profiles],
        )
        self._busy = False
        return True


class CudaEngine:
    def __init__(self, behaviour: Behaviour) -> None:
        self._b = behaviour

    @property
    def num_io_tensors(self) -> int:
        return len(self._b.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return max(len(tensor.profiles) for tensor in self._b.tensors)

    def _tensor(self, name: str) -> Tensor:
        return next(tensor for tensor in self._b.tensors if tensor.name == name)

    def get_tensor_name(self, index: int) -> str:
        return self._b.tensors[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if self._tensor(name).profiles else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return self._tensor(name).location

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensor(name).dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensor(name).shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        tensor = self._tensor(name)
        return [
            tuple(batch if size == -1 else size for size in tensor.shape) for batch in tensor.profiles[profile_index]
        ]

    def create_execution_context(self) -> ExecutionContext | None:
        if self._b.no_context:
            self._b.log.log(1, "Requested amount of GPU memory could not be allocated")
            return None
        return ExecutionContext(self._b)


class ILogger:
    def __init__(self) -> None:
        pass


class PluginRegistry:
    pass


def runtime_module(version: str, behaviour: Behaviour) -> Any:
    """A module with the classes above whose engines behave so."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            behaviour.log = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine:
            assert serialized_engine
            return CudaEngine(behaviour)

    class Module:
        __version__ = version

    module = Module()
    for thing in (TensorIOMode, TensorLocation, DataType, ILogger, Runtime):
        setattr(module, thing.__name__, thing)
    module.get_plugin_registry = PluginRegistry  # type: ignore[attr-defined]
    return module
