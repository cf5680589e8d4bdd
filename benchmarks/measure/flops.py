"""Floating-point operations of a network, counted by PyTorch's counter on the meta device: nothing is computed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from avsbg.benchmarks.results.schema import Metric

if TYPE_CHECKING:
    from avsbg.model import Variant
    from avsbg.runtime.bundle.manifest import MergeRecord


def count_flops(variant: Variant, *, frames: int, height: int, width: int) -> Metric:
    """Count the operations of one clip, by part of the network in the order of execution; VGGish is not included.

    As `torch.utils.flop_counter` has it, matrix products and convolutions count and elementwise work does not. The
    correlation operators count as the products of their definition. One multiply-add is two operations.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from avsbg.model import build

    operators = torch.ops.avsbg
    formulas = dict.fromkeys((operators.mean_correlation, operators.correlation_volume), correlation_flops)
    with torch.no_grad(), torch.device("meta"):
        # The counter follows gradients of what requires them, which a view of a parameter has none of here.
        network = build(variant).requires_grad_(False)
        for module in network.modules():
            # Fused attention reaches the counter as one operator of which it knows no cost on this device.
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010  (timm's own attribute, unknown to the type checker)
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            shapes = ((frames, 3, height, width), network.record.sound_shape(frames))
            network(*(torch.empty(1, *shape) for shape in shapes if shape is not None))
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(network).__name__
    parts = {part: _part_flops(by_module, f"{root}.{part}") for part, _ in network.named_children()}
    counted: dict[str, int | float] = {part: flops for part, flops in parts.items() if flops}
    return Metric(unit="FLOP", value=counter.get_total_flops(), parts=counted)


def merged_flops(count: Metric, merges: Iterable[MergeRecord], *, frames: int) -> Metric:
    """The operations of a clip of T frames in a graph in which operations of the network are merged."""
    parts = dict(count.parts)
    for merge in merges:
        # `network.head.2/Conv`; the last one, since an enlarged map belongs to the part before. VGGish is not counted.
        root, _, module = merge.nodes[-1].partition(".")
        if root == "network":
            parts[module.partition(".")[0]] -= frames * (merge.operations_before - merge.operations_after)
    total = count.number - sum(count.parts.values()) + sum(parts.values())
    return Metric(unit="FLOP", value=total, parts=parts)


def correlation_flops(a: tuple[int, ...], b: tuple[int, ...], *_: object, **__: object) -> int:
    """Operations of a correlation operator: `2 N P Q C` for descriptors `a [N, P, C]` and `b [N, Q, C]`."""
    pairs, rows, channels = a
    return 2 * pairs * rows * b[1] * channels


def _part_flops(by_module: dict[str, int], part: str) -> int:
    """The count of a part; a list of modules is never called itself, so the counter has its elements only."""
    if part in by_module:
        return by_module[part]
    prefix = f"{part}."
    return sum(flops for name, flops in by_module.items() if name.removeprefix(prefix).isdigit())
