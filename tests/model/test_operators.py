"""The operators against a materialised float64 reference, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avsbg.model import correlation_volume, mean_correlation, operators


def _reference(a, b):
    volume = torch.relu(a.double() @ b.double().transpose(1, 2))
    return volume.mean(2), volume.mean(1)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 3),
    p=st.integers(1, 70),
    q=st.integers(1, 70),
    c=st.sampled_from([1, 8, 24]),
    seed=st.integers(0, 9),
    tile=st.sampled_from([1, 200, 2**22]),
)
def test_means_and_gradients_equal_the_materialised_form(n, p, q, c, seed, tile):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, p, c, generator=generator, dtype=torch.float64)
    b = torch.randn(n, q, c, generator=generator, dtype=torch.float64)
    weight_a, weight_b = torch.randn(n, p, generator=generator), torch.randn(n, q, generator=generator)
    gradients = []
    previous, operators._TILE_ELEMENTS = operators._TILE_ELEMENTS, tile
    try:
        for function in (mean_correlation, _reference):
            with torch.enable_grad():
                left, right = a.clone().requires_grad_(), b.clone().requires_grad_()
                mean_a, mean_b = function(left, right)
                (mean_a * weight_a).sum().add((mean_b * weight_b).sum()).backward()
            gradients.append((mean_a.detach(), mean_b.detach(), left.grad, right.grad))
    finally:
        operators._TILE_ELEMENTS = previous
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


def test_gradcheck_of_both_operators():
    with torch.enable_grad():
        a = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
        b = torch.randn(2, 7, 8, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(mean_correlation, (a, b))
        assert torch.autograd.gradcheck(lambda x, y: mean_correlation(x, y)[0], (a, b))
        assert torch.autograd.gradcheck(lambda x, y: correlation_volume(x, y, True), (a, b))


def test_operators_obey_the_rules_of_custom_operators():
    a, b = torch.randn(2, 6, 8, requires_grad=True), torch.randn(2, 4, 8, requires_grad=True)
    torch.library.opcheck(mean_correlation, (a, b))
    torch.library.opcheck(correlation_volume, (a, b, True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_accumulates_in_fp32(dtype):
    # 4096 products of 1/4: a half-precision sum would stop growing long before the end.
    a, b = torch.full((1, 3, 8), 0.5, dtype=dtype), torch.full((1, 4096, 8), 0.0625, dtype=dtype)
    mean_a, mean_b = mean_correlation(a, b)
    assert mean_a.dtype == mean_b.dtype == torch.float32
    assert torch.equal(mean_a, torch.full((1, 3), 0.25))
    assert torch.equal(mean_b, torch.full((1, 4096), 0.25))


def test_nan_reaches_both_means():
    a, b = torch.ones(1, 2, 8), torch.ones(1, 3, 8)
    a[0, 1, 4] = torch.nan
    mean_a, mean_b = mean_correlation(a, b)
    assert mean_a.isnan().tolist() == [[False, True]]
    assert mean_b.isnan().all()


@pytest.mark.parametrize(
    ("a", "b", "error"),
    [
        (torch.zeros(1, 2, 8), torch.zeros(1, 2, 16), ValueError),
        (torch.zeros(1, 2, 8), torch.zeros(2, 2, 8), ValueError),
        (torch.zeros(2, 8), torch.zeros(2, 8), ValueError),
        (torch.zeros(1, 2, 8), torch.zeros(1, 2, 8).half(), TypeError),
        (torch.zeros(1, 2, 8, dtype=torch.int32), torch.zeros(1, 2, 8, dtype=torch.int32), TypeError),
    ],
)
def test_bad_descriptors_are_refused(a, b, error):
    for operator in (mean_correlation, correlation_volume):
        with pytest.raises(error, match="descriptors"):
            operator(a, b)
