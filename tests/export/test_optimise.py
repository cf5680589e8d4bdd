"""Optimising an exported graph: constants that matter stay, however small."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from avsbg.export.optimise import optimise

_OPERATIONS = {
    "add": lambda x, c: 1e-8 / (x + c),
    "add before": lambda x, c: 1e-8 / (c + x),
    "add a vector": lambda x, c: 1e-8 / (x + torch.tensor([c, c])),
    "subtract": lambda x, c: 1e-8 / (x - c),
    "log": lambda x, c: torch.log(x + c),
    "multiply": lambda x, c: (x + 1) * c - 1,
    "divide": lambda x, c: (x + 1) / c - 1,
}


class _Arithmetic(torch.nn.Module):
    """One operation with a constant."""

    def __init__(self, operation: str, constant: float) -> None:
        super().__init__()
        self.operation, self.constant = operation, constant
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _OPERATIONS[self.operation](x, self.constant)


def _run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return session.run(None, {model.graph.inputs[0].name: x})[0]


@pytest.mark.parametrize(
    ("operation", "constant"),
    [
        *(("add", constant) for constant in (1e-6, 1e-8, 1e-10, 1e-12, 2.220446e-16, 1e-30)),
        ("add before", 1e-10),
        ("add a vector", 1e-10),
        ("subtract", 1e-10),
        ("log", 2.220446e-16),
        ("multiply", 1.000009),
        ("multiply", 0.999995),
        ("divide", 1.000009),
    ],
)
def test_constants_that_are_nearly_neutral_stay(operation: str, constant: float) -> None:
    module = _Arithmetic(operation, constant)
    x = torch.zeros(3, 2)
    program = torch.onnx.export(module, (x,), dynamo=True, optimize=False, verbose=False)
    assert program is not None
    optimise(program.model)
    found = _run(program.model, x.numpy())
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, module(x).numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("operation", "constant"), [("add", 0.0), ("multiply", 1.0)])
def test_constants_that_are_neutral_go(operation: str, constant: float) -> None:
    program = torch.onnx.export(
        _Arithmetic(operation, constant), (torch.ones(3, 2),), dynamo=True, optimize=False, verbose=False
    )
    assert program is not None
    before = len(program.model.graph)
    optimise(program.model)
    assert len(program.model.graph) < before
