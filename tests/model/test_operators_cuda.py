"""PyTorch's operators on CUDA: the registered call path, run with tensors of the CPU on the emulated libavsbg_cuda."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from avsbg.model import correlation_volume, mean_correlation, operators_cuda
from avsbg.model.operators import composite
from avsbg.native_library import NativeLibraryError
from fixtures.emulation import compile_library

LIBRARY = operators_cuda.library  # before a fixture replaces it
OPERATORS = (mean_correlation, correlation_volume)
_ENDED = []  # contexts that keep the kernels of this module away from the tests that follow in the process


@pytest.fixture(scope="module")
def routed() -> Iterator[None]:
    """The CPU's tensors go where CUDA's would, to a library whose device is the processor."""
    library = operators_cuda.CudaLibrary(compile_library())
    patch = pytest.MonkeyPatch()
    patch.setattr(operators_cuda, "library", lambda: library)
    mean_correlation.register_kernel("cpu")(operators_cuda.mean_correlation)
    correlation_volume.register_kernel("cpu")(operators_cuda.correlation_volume)
    yield
    patch.undo()
    for operator in OPERATORS:
        _ENDED.append(operator.set_kernel_enabled("cpu", enabled=False))
        _ENDED[-1].__enter__()


def descriptors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, positions, 24, generator=generator, dtype=torch.float32) for positions in (20, 33))
    return a.to(dtype), b.to(dtype)


def reference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    volume = a.double() @ b.double().transpose(1, 2)
    return volume.relu().mean(2), volume.relu().mean(1), volume


def distance(results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    return max((one - other).abs().max().item() for one, other in zip(results, expected, strict=True))


@pytest.mark.native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_both_operators(routed: None, dtype: torch.dtype) -> None:
    a, b = descriptors(dtype)
    results = (*mean_correlation(a, b), correlation_volume(a, b))
    assert all(result.dtype == torch.float32 for result in results)
    assert distance(results, reference(a, b)) < 1e-5
    assert torch.equal(correlation_volume(a, b, True), results[2].relu())


@pytest.mark.native
def test_tf32_where_pytorch_is_set_to_it(routed: None) -> None:
    a, b = descriptors()
    assert distance(mean_correlation(a, b), reference(a, b)[:2]) < 1e-6
    settings = torch.backends.cuda.matmul
    before, settings.fp32_precision = settings.fp32_precision, "tf32"
    try:
        results = (*mean_correlation(a, b), correlation_volume(a, b))
    finally:
        settings.fp32_precision = before
    # Each factor is off by up to 2^-11 of its size.
    assert 1e-5 < distance(results, reference(a, b)) < 2e-2


@pytest.mark.native
def test_gradients_are_the_composites(routed: None) -> None:
    gradients = []
    for enabled in (True, False):
        a, b = (one.requires_grad_() for one in descriptors())
        with (
            torch.enable_grad(),
            mean_correlation.set_kernel_enabled("cpu", enabled=enabled),
            correlation_volume.set_kernel_enabled("cpu", enabled=enabled),
        ):
            mean_a, mean_b = mean_correlation(a, b)
            (mean_a.square().sum() + mean_b.sum() + correlation_volume(a, b, True).square().mean()).backward()
        gradients.append((a.grad, b.grad))
    assert distance(*gradients) < 1e-5


@pytest.mark.native
def test_the_rules_of_custom_operators_hold(routed: None) -> None:
    a, b = (one.requires_grad_() for one in descriptors())
    torch.library.opcheck(mean_correlation, (a, b))
    torch.library.opcheck(correlation_volume, (a, b, True))


@pytest.mark.native
def test_float64_is_for_the_composite(routed: None) -> None:
    a, b = descriptors(torch.float64)
    with pytest.raises(operators_cuda.OperatorError, match=r"not float64\. The composite takes it"):
        mean_correlation(a, b)


def test_the_composite_is_asked_for_by_name() -> None:
    """Outside of it CUDA's tensors meet our kernel, inside of it PyTorch's own operators."""
    for operator in OPERATORS:
        assert operator._backend_fns.keys() >= {"cuda"}
    with composite():
        assert all("cuda" in operator._disabled_kernel for operator in OPERATORS)
    assert not any("cuda" in operator._disabled_kernel for operator in OPERATORS)


def test_a_missing_library_is_an_error_that_names_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise NativeLibraryError(f"the native library {name} was not built.", "No CUDA compiler.")

    monkeypatch.setattr(operators_cuda, "native_library", missing)
    LIBRARY.cache_clear()
    with pytest.raises(
        NativeLibraryError, match=r"cuda was not built.*No CUDA compiler.*`make native`.*torch:efficient"
    ):
        LIBRARY()


class _Means(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return mean_correlation(a, b)


class _Correlated(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        mean_a, mean_b = mean_correlation(a.relu(), b)
        return mean_a.sigmoid(), mean_b + correlation_volume(a, b, True).amax(1)


def count_nodes(graph: torch.fx.Graph) -> dict[str, int]:
    names = [str(node.target) for node in graph.nodes]
    return {name: names.count(f"avsbg.{name}.default") for name in ("mean_correlation", "correlation_volume")}


def test_compile_and_export_keep_one_node_for_each() -> None:
    graphs = []

    def record(module: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(count_nodes(module.graph))
        return module

    a, b = descriptors()
    torch.compile(_Correlated(), backend=record, fullgraph=True)(a, b)
    graphs.append(count_nodes(torch.export.export(_Correlated(), (a, b)).graph))
    assert graphs == [{"mean_correlation": 1, "correlation_volume": 1}] * 2


@pytest.mark.slow
@pytest.mark.native
def test_a_package_of_aotinductor_asks_the_dispatcher(routed: None, tmp_path: Path) -> None:
    """It is compiled from the fake alone, and calls what the device has when it runs: here, the emulated kernels."""
    a, b = descriptors()
    with mean_correlation.set_kernel_enabled("cpu", enabled=False):
        exported = torch.export.export(_Means(), (a, b))
        package = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "network.pt2"))
    loaded = torch._inductor.aoti_load_package(package)
    assert distance(loaded(a, b), reference(a, b)[:2]) < 1e-5
    with pytest.raises(RuntimeError, match="C = 12 channels"):
        loaded(a[..., :12].contiguous(), b[..., :12].contiguous())
