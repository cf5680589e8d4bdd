"""The backend `torch`: the network in PyTorch, with the weights that the bundle's graph holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from avsbg.export.graphs import AudioForm, ClipGraph, graph_module, needs_audio_encoder
from avsbg.export.weights import load_graph_weights, read_graph_weights
from avsbg.model import Variant, VariantError, build, create_audio_encoder, operators_cuda
from avsbg.model.operators import composite
from avsbg.runtime.backends.base import Backend, DeviceTensor, Inputs, Results
from avsbg.runtime.backends.spec import OperatorImplementation, device_number
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.precision import PRECISIONS, join_names
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError


def torch_device(name: str) -> torch.device:
    """The device `cpu`, `cuda` or `cuda:N`; a `BackendError` says why PyTorch does not have it."""
    kind: Literal["cpu", "cuda"] = "cuda" if name.startswith("cuda") else "cpu"
    number = device_number("torch", name, kind)
    if kind == "cpu":
        return torch.device(kind)
    message = f"the device {name} was asked for, but"
    if torch.version.cuda is None:
        hint = "Install PyTorch for CUDA (pytorch.org/get-started), or use --device cpu."
        raise BackendError(f"{message} PyTorch {torch.__version__} was built without CUDA.", hint)
    if not torch.cuda.is_available():
        hint = "`avsbg doctor` shows the GPU and its driver. Without one, use --device cpu."
        raise BackendError(f"{message} PyTorch {torch.__version__} for CUDA {torch.version.cuda} finds no GPU.", hint)
    if number >= torch.cuda.device_count():
        raise BackendError(f"{message} there is no GPU number {number}.", f"There are {torch.cuda.device_count()}.")
    return torch.device(kind, number)


@contextmanager
def _fp32_products(precision: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Within it, CUDA computes fp32 matrix products and convolutions so, in every thread."""
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = precision
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


class TorchTensor(DeviceTensor):
    """A tensor on its device; PyTorch's allocator reuses what is released."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__(np.dtype(str(tensor.dtype).removeprefix("torch.")), tuple(tensor.shape))
        self._tensor = tensor

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor; a BackendError where it was released."""
        self._check()
        return self._tensor

    def _copy(self) -> NDArray[Any]:
        array: NDArray[Any] = self._tensor.cpu().numpy().copy()
        return array

    def _return_buffer(self) -> None:
        del self._tensor


class TorchBackend(Backend):
    """Executes a bundle's network in PyTorch, eagerly, by default with the variant's own operator, in fp32.

    The architecture is rebuilt from the manifest's variant record and the weights are read from the graph's
    initialisers, so that the checkpoint is not needed. In bf16, PyTorch's autocast keeps sums and norms in fp32; on a
    GPU there are fp16, likewise, and tf32, and fp32 is never rounded to it. The number of threads within an operator
    holds for the whole process while the backend is open.

    Args:
        operator: on a GPU, `native` (our kernels, the default where the network correlates frames) or `efficient`
            (PyTorch's own operators, without the volume); on the CPU `efficient`; anywhere `published` (the volume).
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        BackendError: there is no such operator, precision or device.
        NativeLibraryError: on a GPU, our kernels were not built, and no other operator was asked for.
    """

    name: ClassVar[str] = "torch"
    OPERATORS = (OperatorImplementation.NATIVE, OperatorImplementation.EFFICIENT, OperatorImplementation.PUBLISHED)

    def __init__(
        self,
        bundle: Bundle,
        graph: str = "clip",
        *,
        operator: str | None = None,
        precision: Precision | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        super().__init__(bundle, graph)
        self._device = torch_device(device)
        self._precision = precision or "fp32"
        on_gpu = {"fp16": torch.float16} if self._device.type == "cuda" else {}
        types = on_gpu | {
            name: getattr(torch, one.torch_autocast) for name, one in PRECISIONS.items() if one.torch_autocast
        }
        offered = ["fp32", *(["tf32"] if on_gpu else []), *types]
        if self._precision not in offered:
            where = f"the backend torch on {self._device.type} computes"
            raise BackendError(f"{where} in {join_names(offered)}, not in {precision}.")
        self._autocast: torch.dtype | None = types.get(self._precision)
        if threads is not None and threads < 1:
            raise BackendError(f"threads must be at least 1, not {threads}.")
        try:
            # Parameters that only training needs are not in the graph.
            variant = replace(Variant.from_dict(bundle.manifest.variant), bidirectional=False)
            self._operator = self._choose(self._check_operator(operator), variant)
            is_published = self._operator is OperatorImplementation.PUBLISHED
            self._variant = replace(variant, form="published" if is_published else "efficient")
        except VariantError as error:
            raise BackendError(f"the backend torch cannot run this: {error}") from error
        self._threads = threads
        self._threads_before = torch.get_num_threads()
        self._module: ClipGraph | None = None

    def describe(self) -> dict[str, Any]:
        """The module as it runs."""
        return {
            "backend": self.name,
            "version": torch.__version__,
            "graph": self.graph,
            "operator": self._operator.value,
            "device": str(self._device),
            **({} if self._device.type == "cpu" else {"gpu": torch.cuda.get_device_name(self._device)}),
            "precision": self._precision,
            "threads": torch.get_num_threads(),
        }

    def _choose(self, asked: OperatorImplementation | None, variant: Variant) -> OperatorImplementation:
        """The implementation of the operator that will run; that on a GPU, our kernels can be called."""
        native = OperatorImplementation.NATIVE
        if asked is None:
            correlates = variant.motion and variant.form == "efficient"
            asked = native if correlates and self._device.type == "cuda" else OperatorImplementation(variant.form)
        if asked is native:
            if self._device.type != "cuda":
                raise BackendError("in PyTorch, our kernels are for GPUs.", "Use torch:efficient, or --device cuda.")
            if not variant.motion:
                raise BackendError(f"the network {variant.network} correlates no frames.", "Use torch:efficient.")
            operators_cuda.library()
        return asked

    def _open(self) -> None:
        audio = AudioForm(self.bundle.manifest.clip.audio)
        needed = needs_audio_encoder(self._variant, audio)
        encoder = create_audio_encoder(self.bundle.manifest.weights.audio_encoder) if needed else None
        module = ClipGraph(build(self._variant), audio, encoder)
        # A stream's graphs hold a part of the weights each, the clip's all of them.
        graph = "clip" if GraphName.parse(self.graph).is_of_stream else self.graph
        load_graph_weights(module, read_graph_weights(self.bundle, graph))
        self._module = graph_module(module, self.graph).to(self._device)
        if self._threads is not None:
            torch.set_num_threads(self._threads)

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        assert self._module is not None
        arguments = [self._as_tensor(tensor.name, inputs[tensor.name]) for tensor in self.contract.inputs]
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None))
            if self._device.type == "cuda":
                stack.enter_context(_fp32_products("tf32" if self._precision == "tf32" else "ieee"))
                if self._operator is not OperatorImplementation.NATIVE:
                    stack.enter_context(composite())
            computed = self._module(*arguments)
        # Autocast returns what its last product computed in; numpy has no bf16.
        results = {
            name: one.float() if one.is_floating_point() else one
            for name, one in zip(self._module.outputs, computed, strict=True)
        }
        return {
            name: TorchTensor(results[name]) if name in device_outputs else results[name].cpu().numpy()
            for name in outputs
        }

    def _as_tensor(self, name: str, array: NDArray[Any] | DeviceTensor) -> torch.Tensor:
        if not isinstance(array, DeviceTensor):
            return torch.from_numpy(array).to(self._device)
        if not isinstance(array, TorchTensor):
            raise self._reject(name, f"{type(array).__name__} is another backend's")
        if array.tensor.device != self._device:
            raise self._reject(name, f"it lies on {array.tensor.device}, not on {self._device}")
        return array.tensor

    def _close(self) -> None:
        self._module = None
        torch.set_num_threads(self._threads_before)
