"""Parity of losses, their gradients, metrics and transforms with the released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from avsbg.model.training import objective as losses
from avsbg.model.training.data import frame_array, mask_array, normalise
from avsbg.model.training.metrics import Score, f_score, frame_iou, mean_iou, mean_score, precision_recall
from fixtures.golden import assert_summary, load, masks, normal, rng

# On logits and masks: the loss, and the step between the frames it is given (5: the first frame of each clip).
SUPERVISED = {
    "bg_structure_ms3": (losses.structure_loss, 1),
    "bg_structure_s4": (losses.structure_loss, 5),
    "bench_F1_bce_s4": (losses.cross_entropy, 5),
    "bench_F5_bce_ms3": (losses.cross_entropy, 1),
}
# On logits, features of that width, and sound.
AUDIO_VISUAL = {
    "bg_kl_avg": (losses.audio_visual_loss, 128, {"unit": True}),
    "bg_kl_max": (losses.audio_visual_loss, 128, {"unit": True, "pooling": "max"}),
    "bench_kl_nonorm": (losses.audio_visual_loss, 256, {"unit": False}),
    "bench_kl_norm": (losses.audio_visual_loss, 256, {"unit": True}),
    "bench_kl_nonorm_threshold": (losses.audio_visual_loss, 256, {"unit": False, "threshold": True}),
    "bench_euclid_norm": (losses.audio_visual_loss, 256, {"unit": True, "distance": "euclidean"}),
    "bench_closer_kl_norm": (losses.closest_sound_loss, 256, {}),
    "bench_closer_euclid_norm": (losses.closest_sound_loss, 256, {"distance": "euclidean"}),
    "bench_s4_cos_sa": (losses.cosine_alignment_loss, 256, {}),
}


def _sound(width):
    if width == 128:
        return [torch.from_numpy(rng(f"u1/afea128_{i}/audio").random([10, 128]).astype(np.float32)) for i in range(4)]
    return [normal("u1", f"afea256_{i}", [2, 5, 256]).reshape(10, 256).requires_grad_() for i in range(4)]


def _logits():
    return normal("u1", "pred", [10, 1, 64, 64], 2, -0.3).requires_grad_()


def _compare(golden, name, loss, inputs):
    np.testing.assert_allclose(loss.detach(), golden[f"{name}.loss"][0], rtol=1e-5, atol=1e-6)
    compared = {key.split(".")[1] for key in golden if key.startswith(f"{name}.grad_")}
    assert compared == {key for key, tensor in inputs.items() if tensor.grad is not None}
    for key in compared:
        gradient = inputs[key].grad
        if gradient.dim() == 2:  # the released code's audio is [B, T, C]
            gradient = gradient.reshape(2, 5, -1)
        assert_summary(golden, f"{name}.{key}", gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised_losses_and_their_gradients(name):
    loss_of, step = SUPERVISED[name]
    logits, mask = _logits(), masks("u1", 10, 64, 8)
    with torch.enable_grad():
        loss = loss_of(logits[::step, 0], mask[::step, 0])
        loss.backward()
    _compare(load("losses_u1"), name, loss, {"grad_pred": logits})


@pytest.mark.parametrize("name", AUDIO_VISUAL)
def test_audio_visual_losses_and_their_gradients(name):
    loss_of, width, options = AUDIO_VISUAL[name]
    logits, sound = _logits(), _sound(width)
    stages = [normal("u1", f"vmap{width}_{i}", [10, width, s, s]).requires_grad_() for i, s in enumerate((16, 8, 4, 2))]
    with torch.enable_grad():
        loss = loss_of(logits[:, 0], stages, sound, **options)
        loss.backward()
    inputs = {"grad_pred": logits, **{f"grad_extra{j}": tensor for j, tensor in enumerate(stages + sound)}}
    _compare(load("losses_u1"), name, loss, inputs)


def test_every_golden_loss_is_compared():
    # bg_structure_s4_4d is bg_structure_s4 with the mask given as [B, 1, H, W]; our masks have one shape.
    names = {key.split(".")[0] for key in load("losses_u1") if key.endswith(".loss")}
    assert names - {"bg_structure_s4_4d"} == {*SUPERVISED, *AUDIO_VISUAL}


def _metric_case(case):
    mask = masks("u1", 6, 64, 8)
    logits = normal("u1", "mpred", [6, 64, 64], 3, -0.5) + 3 * (mask[:, 0] - 0.5)
    mask = mask[:, 0].clone()
    mask[5] = 1
    logits[1, :8], logits[1, 8:16], logits[2, :4] = 40, -120, 0
    empty = torch.zeros_like(mask)
    return {
        "mixed": (logits, mask),
        "all_empty": (logits, empty),
        "all_empty_pred_neg": (torch.full_like(logits, -5), empty),
        "all_empty_pred_pos": (torch.full_like(logits, 5), empty),
        "perfect": (mask * 20 - 10, mask),
        "inverted": (10 - mask * 20, mask),
        "pred_zero_logit": (torch.zeros_like(logits), mask),
    }[case]


@pytest.mark.parametrize(
    "case",
    ["mixed", "all_empty", "all_empty_pred_neg", "all_empty_pred_pos", "perfect", "inverted", "pred_zero_logit"],
)
def test_metrics(case):
    golden = load("metrics_u1")
    logits, mask = _metric_case(case)
    np.testing.assert_allclose(mean_iou(logits, mask), golden[f"{case}.miou"][0], atol=1e-6)
    np.testing.assert_allclose(f_score(logits, mask), golden[f"{case}.fbeta"][0], atol=1e-6)
    np.testing.assert_allclose(frame_iou(logits, mask), golden[f"{case}.miou_per_frame"], atol=1e-6)
    per_frame = [f_score(logits[i : i + 1], mask[i : i + 1]) for i in range(6)]
    np.testing.assert_allclose(per_frame, golden[f"{case}.fbeta_per_frame"], atol=1e-6)


def test_precision_and_recall_at_every_threshold():
    golden = load("metrics_u1")
    precision, recall = precision_recall(*_metric_case("mixed"))
    # If the mask is empty, the released code divides by 1e-20 in float32; both give 0 there.
    np.testing.assert_allclose(precision, golden["mixed.precision"], atol=1e-6)
    np.testing.assert_allclose(recall, golden["mixed.recall"], atol=1e-6)


def test_a_run_is_the_mean_over_its_batches():
    assert mean_score([Score(0.25, 0.5), Score(0.75, 1.0)]) == Score(0.5, 0.75)
    with pytest.raises(ValueError, match="no scores"):
        mean_score([])


def test_transforms():
    golden = load("transforms_u1")
    image = rng("u1/img").integers(0, 256, [8, 8, 3], dtype=np.uint8)
    normalised = normalise(frame_array(Image.fromarray(image)))
    np.testing.assert_allclose(normalised, golden["image_normalised"], atol=1e-6)
    grey = rng("u1/grey").integers(0, 256, [8, 8], dtype=np.uint8)
    for name, pixels in (("mask", grey), ("binmask", np.where(grey >= 128, 255, 0).astype(np.uint8))):
        for task in ("s4", "ms3"):
            np.testing.assert_array_equal(mask_array(Image.fromarray(pixels), task)[None], golden[f"{name}_{task}"])


def test_masks_that_the_published_loader_would_misread_are_refused():
    colour = Image.fromarray(np.full((4, 4, 3), 255, np.uint8))
    with pytest.raises(ValueError, match="mode RGB"):
        mask_array(colour, "ms3")
    indexed = Image.fromarray(np.eye(4, dtype=np.uint8))
    indexed.putpalette([0, 0, 0, 255, 255, 255])
    with pytest.raises(ValueError, match="indices"):
        mask_array(indexed, "ms3")
    assert mask_array(colour, "s4").min() == 1
