"""The backend `torch`: the network in PyTorch, with the weights that the bundle's graph holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from avsbg.export.graphs import AudioForm, ClipGraph, graph_module, needs_audio_encoder
from avsbg.export.weights import load_graph_weights, read_graph_weights
from avsbg.model import Variant, VariantError, build, create_audio_encoder
from avsbg.runtime.backends.base import Backend, DeviceTensor, Inputs, Results
from avsbg.runtime.backends.spec import OperatorImplementation
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.precision import PRECISIONS, join_names
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError


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
    initialisers, so that the checkpoint is not needed. In bf16, PyTorch's autocast keeps sums and norms in fp32. The
    number of threads within an operator holds for the whole process while the backend is open. A BackendError says that
    there is no such operator, precision or device.
    """

    name: ClassVar[str] = "torch"
    OPERATORS = (OperatorImplementation.EFFICIENT, OperatorImplementation.PUBLISHED)

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
        self._precision = precision or "fp32"
        autocast = PRECISIONS[self._precision].torch_autocast
        if self._precision != "fp32" and autocast is None:
            offered = [name for name, spec in PRECISIONS.items() if name == "fp32" or spec.torch_autocast]
            raise BackendError(f"the backend torch computes in {join_names(offered)}, not in {precision}.")
        self._autocast: torch.dtype | None = None if autocast is None else getattr(torch, autocast)
        if threads is not None and threads < 1:
            raise BackendError(f"threads must be at least 1, not {threads}.")
        try:
            # What only training needs is not in the graph.
            variant = replace(Variant.from_dict(bundle.manifest.variant), bidirectional=False)
            implementation = self._check_operator(operator)
            self._variant = variant if implementation is None else replace(variant, form=implementation.value)
            self._device = torch.device(device)
        except (VariantError, RuntimeError) as error:
            raise BackendError(f"the backend torch cannot run this: {error}") from error
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise BackendError(f"the device {device} was asked for, but PyTorch finds no GPU.", "Use --device cpu.")
        self._threads = threads
        self._threads_before = torch.get_num_threads()
        self._module: ClipGraph | None = None

    def describe(self) -> dict[str, Any]:
        """The module as it runs."""
        return {
            "backend": self.name,
            "version": torch.__version__,
            "graph": self.graph,
            "operator": self._variant.form,
            "device": str(self._device),
            "precision": self._precision,
            "threads": torch.get_num_threads(),
        }

    def _open(self) -> None:
        audio = AudioForm(self.bundle.manifest.clip.audio)
        needed = needs_audio_encoder(self._variant, audio)
        encoder = create_audio_encoder(self.bundle.manifest.weights.audio_encoder) if needed else None
        module = ClipGraph(build(self._variant), audio, encoder)
        # A stream's graphs hold a part of the weights each, the clip's all of them.
        streams = GraphName.parse(self.graph).role in ("encode", "decode")
        load_graph_weights(module, read_graph_weights(self.bundle, "clip" if streams else self.graph))
        self._module = graph_module(module, self.graph).to(self._device)
        if self._threads is not None:
            torch.set_num_threads(self._threads)

    def _run(self, inputs: Inputs, outputs: Sequence[str], device_outputs: Collection[str]) -> Results:
        assert self._module is not None
        arguments = [self._as_tensor(tensor.name, inputs[tensor.name]) for tensor in self.contract.inputs]
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None),
        ):
            computed = self._module(*arguments)
        # Autocast returns what its last product computed in; numpy has no bf16.
        results = {name: one.float() for name, one in zip(self._module.outputs, computed, strict=True)}
        return {
            name: TorchTensor(results[name]) if name in device_outputs else results[name].cpu().numpy()
            for name in outputs
        }

    def _as_tensor(self, name: str, array: NDArray[Any] | DeviceTensor) -> torch.Tensor:
        if not isinstance(array, DeviceTensor):
            return torch.from_numpy(array).to(self._device)
        if not isinstance(array, TorchTensor):
            raise self._reject(name, f"{type(array).__name__} is another backend's")
        if array.tensor.device.type != self._device.type:
            raise self._reject(name, f"it lies on {array.tensor.device}, not on {self._device}")
        return array.tensor

    def _close(self) -> None:
        self._module = None
        torch.set_num_threads(self._threads_before)
