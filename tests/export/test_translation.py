"""Translation from PyTorch to ONNX: programs that are traced once, and those that the exporter has to decompose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from avsbg.export.shape import ClipShape
from avsbg.export.translation import translate


class Graph(nn.Module):
    """A function of one tensor `[clips, 4, 6]` as a graph module."""

    BATCH = "clips"
    outputs = ("y",)

    def __init__(self, function: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        self.function, self.norm = function, nn.BatchNorm1d(4).eval()
        self.norm.running_mean.copy_(torch.tensor([0.5, -0.5, 0.25, 0.0]))

    def example(self, _: ClipShape) -> dict[str, Tensor]:
        return {"x": torch.linspace(-2, 2, 48).reshape(2, 4, 6)}

    def dynamic_shapes(self, batch: dict[int, torch.export.Dim]) -> tuple[dict[int, torch.export.Dim], ...]:
        return (batch,)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.norm)


def in_place(x: Tensor, norm: nn.Module) -> Tensor:
    changed = norm(x).relu_()
    shortcut = (x * 2).add_(changed)
    return torch.cat([shortcut, 1 - changed, nn.functional.hardtanh(changed * 3, 0, 6, inplace=True)], dim=1)


def several_users_of_what_is_changed(x: Tensor, norm: nn.Module) -> Tensor:
    kept = x * 2
    changed = kept.relu_()
    return torch.cat([norm(kept), changed.add_(1), kept, 1 - changed], dim=1)  # `kept` is `changed`


def composites(x: Tensor, norm: nn.Module) -> Tensor:
    halves = nn.functional.dropout(norm(x), 0.5, training=False).to(torch.float64).movedim(1, -1)
    return nn.functional.hardtanh_(halves.to(torch.float32) + 1, -0.5, 0.5)


def changed_and_returned(x: Tensor, _: nn.Module) -> Tensor:
    kept = x * 2
    kept.relu_()
    return kept


def nothing_done_and_returned(x: Tensor, _: nn.Module) -> Tensor:
    return nn.functional.dropout(x + 1, 0.5, training=False)


def type_changed_with_the_device(x: Tensor, _: nn.Module) -> Tensor:
    return (3 * x).to(x.device, torch.int32).to(torch.float32) + (2 * x).to(x.device)


def copied(x: Tensor, _: nn.Module) -> Tensor:
    kept = x * 2
    copy = kept.to(x.device, torch.float32, copy=True)
    copy.relu_()
    return copy + kept


def another_type_added_in_place(x: Tensor, _: nn.Module) -> Tensor:
    return (x.round().to(torch.float16) * 2).add_(x.round()).to(torch.float32)


def norm_without_parameters(x: Tensor, norm: nn.Module) -> Tensor:
    return nn.functional.batch_norm(x, norm.running_mean, norm.running_var)


def view_changed_in_place(x: Tensor, _: nn.Module) -> Tensor:
    whole = x * 2
    whole[:, 0].relu_()
    return whole


def view_of_what_is_changed(x: Tensor, _: nn.Module) -> Tensor:
    whole = x * 2
    first = whole[:, 0]
    whole.relu_()
    return first + whole[:, 1]


def without_translation(x: Tensor, _: nn.Module) -> Tensor:
    return torch.special.logit(x.sigmoid()) + torch.frac(x)


@pytest.fixture
def decomposed(monkeypatch: pytest.MonkeyPatch) -> list[ExportedProgram]:
    """The programs that the exporter decomposed."""
    programs, decompose = [], ExportedProgram.run_decompositions

    def note(program: ExportedProgram, *arguments: object) -> ExportedProgram:
        programs.append(program)
        return decompose(program, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ExportedProgram, "run_decompositions", note)
    return programs


@pytest.mark.parametrize(
    ("function", "traced_once"),
    [
        (in_place, True),
        (composites, True),
        (several_users_of_what_is_changed, False),
        (copied, False),
        (another_type_added_in_place, False),
        (norm_without_parameters, False),
        (changed_and_returned, True),
        (nothing_done_and_returned, False),
        (type_changed_with_the_device, False),
        (view_changed_in_place, False),
        (view_of_what_is_changed, False),
        (without_translation, False),
    ],
)
def test_the_model_computes_what_the_module_does(
    decomposed: list[ExportedProgram], function: Callable[[Tensor, nn.Module], Tensor], traced_once: bool
) -> None:
    module = Graph(function).eval()
    told: list[str] = []
    model = ir.to_proto(translate(module, ClipShape(), told.append))  # type: ignore[arg-type]
    assert len(decomposed) == len(told) == (not traced_once)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for clips in (1, 3):
        x = torch.randn(clips, 4, 6, generator=torch.Generator().manual_seed(clips))
        with torch.no_grad():
            expected = module(x.clone()).numpy()
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, rtol=1e-5, atol=1e-5)
