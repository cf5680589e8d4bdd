"""Operations against arithmetic by hand."""

from __future__ import annotations

import pytest
import torch

from avsbg.benchmarks.measure.flops import correlation_flops, count_flops, merged_flops
from avsbg.benchmarks.results.schema import Metric
from avsbg.model import named_variant
from avsbg.runtime.bundle.manifest import MergeRecord

PAPER = {"frames": 5, "height": 224, "width": 224}
# Positions of the four stages of a frame of 224 x 224, and the channels of a descriptor.
POSITIONS, CHANNELS = [56**2, 28**2, 14**2, 7**2], 128


def test_a_correlation_costs_one_product_of_every_pair_of_positions() -> None:
    assert correlation_flops((3, 4, 8), (3, 5, 8)) == 3 * 4 * 5 * (2 * 8)


@pytest.mark.parametrize(("form", "pairs"), [("efficient", 4), ("published", 5)])
def test_correlation_of_a_clip(form: str, pairs: int) -> None:
    count = count_flops(named_variant("avs-bg", encoder="pvt_v2_b0", form=form), **PAPER)
    assert count.parts["correlation"] == sum(2 * pairs * positions**2 * CHANNELS for positions in POSITIONS)


def test_avs_bg_as_published_needs_94_3_billion_multiply_adds() -> None:
    count = count_flops(named_variant("avs-bg", form="published"), **PAPER)
    assert count.number / 2e9 == pytest.approx(94.3, abs=0.05)
    assert sum(count.parts.values()) == count.value
    assert list(count.parts) == ["encoder", "neck", "fusion", "correlation", "decoder", "head"]


def test_tpavi_without_its_matrix_leaves_out_two_products_of_all_positions_of_a_clip() -> None:
    efficient, published = (
        count_flops(named_variant("avsbench", encoder="pvt_v2_b0", form=form), **PAPER)
        for form in ("efficient", "published")
    )
    inner = 128
    matrix = sum(2 * 2 * (5 * positions) ** 2 * inner for positions in POSITIONS)
    factored = sum(2 * 5 * inner**2 + 2 * 5 * positions * inner**2 for positions in POSITIONS)
    assert published.number - efficient.number == matrix - factored


def test_merges_are_taken_off_the_parts_that_they_belong_to() -> None:
    count = Metric(unit="FLOP", value=1000, parts={"fusion": 300, "head": 700})
    enlarged = MergeRecord(
        kind="enlarged map",
        nodes=("network.decoder.3/Resize", "network.head.0/Conv"),
        parameters=("network.head.0.weight",),
        operations_before=100,
        operations_after=40,
    )
    columns = enlarged.model_copy(update={"nodes": ("network.fusion.1.conv2/Conv", "network.fusion.1.conv3/Conv")})
    elsewhere = enlarged.model_copy(update={"nodes": ("vggish.a/Conv", "vggish.b/Conv")})
    merged = merged_flops(count, [enlarged, columns, elsewhere], frames=3)
    assert (merged.value, merged.parts) == (1000 - 2 * 3 * 60, {"fusion": 300 - 3 * 60, "head": 700 - 3 * 60})
    assert merged_flops(count, [], frames=3) == count


def test_counting_leaves_the_settings_of_pytorch_alone() -> None:
    before = torch.get_default_device(), torch.is_grad_enabled()
    count_flops(named_variant("avs-bg", encoder="pvt_v2_b0"), frames=2, height=32, width=32)
    assert (torch.get_default_device(), torch.is_grad_enabled()) == before


def test_both_products_of_every_attention_count() -> None:
    """With one of the two, scores or weighted sums, AVSegFormer's count would be 402.3 GFLOP."""
    count = count_flops(named_variant("avsegformer", encoder="resnet50", form="published"), **PAPER)
    queries, cells, width = 300, 28**2 + 14**2 + 7**2, 256
    keys = 6 * (queries + 1) + 6 * (queries + cells)  # of generator and decoder, to themselves and to sound or cells
    one_product = 5 * 2 * queries * keys * width
    assert (count.number - one_product) / 1e9 == pytest.approx(402.3, abs=0.05)
