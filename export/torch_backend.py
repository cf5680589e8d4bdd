"""The backend `torch`: the network in PyTorch, with the weights that the bundle's graph holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from avsbg.export.graphs import OUTPUTS, AudioForm, ClipGraph, needs_vggish
from avsbg.export.weights import load_graph_weights, read_graph_weights
from avsbg.model import Variant, VariantError, VGGish, build
from avsbg.runtime.backends.base import Arrays, Backend
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError


class TorchBackend(Backend):
    """Executes a bundle's network in PyTorch, eagerly and in fp32.

    The architecture is rebuilt from the manifest's variant record and the weights are read from the graph's
    initialisers, so that the checkpoint is not needed.

    Args:
        bundle: an open bundle.
        graph: the graph whose contract and weights are used.
        form: `efficient`, or `published` for the computation of the released code, which materialises the
            correlation volume; by default the variant's own.
        device: where PyTorch runs, e.g. `cpu` or `cuda`.
        threads: threads within an operator; by default PyTorch's choice. The setting holds for the whole process
            while the backend is open.

    Raises:
        BackendError: no such form or device.
    """

    name: ClassVar[str] = "torch"

    def __init__(
        self,
        bundle: Bundle,
        graph: str = "clip",
        *,
        form: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        super().__init__(bundle, graph)
        if threads is not None and threads < 1:
            raise BackendError(f"threads must be at least 1, not {threads}.")
        try:
            # What only training needs is not in the graph.
            variant = replace(Variant.from_dict(bundle.manifest.variant), bidirectional=False)
            self._variant = variant if form is None else replace(variant, form=form)
            self._device = torch.device(device)
        except (VariantError, RuntimeError) as error:
            raise BackendError(f"the backend torch cannot run this: {error}") from error
        if self._device.type == "cuda" and not torch.cuda.is_available():
            raise BackendError(f"the device {device} was asked for, but PyTorch finds no GPU.", "Use --device cpu.")
        self._threads = threads
        self._threads_before = torch.get_num_threads()
        self._module: ClipGraph | None = None

    def describe(self) -> dict[str, Any]:
        """What runs."""
        return {
            "backend": self.name,
            "version": torch.__version__,
            "graph": self.graph,
            "operator": self._variant.form,
            "device": str(self._device),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
        }

    def _open(self) -> None:
        audio = AudioForm(self.bundle.manifest.clip.audio)
        vggish = VGGish() if needs_vggish(self._variant, audio) else None
        module = ClipGraph(build(self._variant), audio, vggish)
        load_graph_weights(module, read_graph_weights(self.bundle.file(self.contract.file)))
        self._module = module.to(self._device)
        if self._threads is not None:
            torch.set_num_threads(self._threads)

    def _run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Arrays:
        assert self._module is not None
        frames, sound = (torch.from_numpy(inputs[tensor.name]).to(self._device) for tensor in self.contract.inputs)
        with torch.inference_mode():
            results = dict(zip(OUTPUTS, self._module(frames, sound), strict=True))
        return {name: results[name].cpu().numpy() for name in outputs}

    def _close(self) -> None:
        self._module = None
        torch.set_num_threads(self._threads_before)
