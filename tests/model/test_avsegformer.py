"""AVSegFormer against the released code: both encoders, binary masks and 71 classes, three sizes, both forms."""

from __future__ import annotations

import json
import re
from functools import partial

import numpy as np
import pytest
import torch

from avsbg.model import ClipShapeError, VGGish, count_parameters, create_network
from avsbg.model.deformable_attention import DeformableAttention, reference_points
from avsbg.model.published import published_key
from fixtures import golden as g

SALT = "avsbg-modern"
TOLERANCE = {"rtol": 1e-4, "atol": 4e-4}


def _name(encoder):
    return partial(published_key, network="avsegformer", encoder=encoder)


def _network(encoder, classes=1, **options):
    golden = g.load(f"avsegformer_{encoder}{'_avss' if classes > 1 else ''}_c1")
    network = create_network("avsegformer", encoder=encoder, classes=classes, **options)
    g.fill(network, golden, _name(encoder))
    return network, golden


def _clip(case, frames, height=224, width=224):
    return g.frames(case, frames, height, width, SALT)[None], g.audio(case, frames, SALT)[None]


def _first(count, clip):
    """The first frames of a clip: nothing mixes frames, so that they may be segmented without the others."""
    return [part[:, :count] for part in clip]


def test_deformable_attention():
    golden = g.load("unit_msdeform_u1")
    sizes = [(6, 8), (3, 4), (2, 2)]
    attention = DeformableAttention()
    g.fill(attention, golden, lambda key: f"head.transformer.encoder.layers.0.self_attn.{key}")
    tokens = g.normal("u1", "msda_src", [2, 64, 256], salt=SALT)
    position = g.normal("u1", "msda_pos", [2, 64, 256], 0.5, salt=SALT)
    np.testing.assert_allclose(reference_points(sizes), golden["reference_points"], atol=1e-6)
    np.testing.assert_allclose(attention(tokens + position, tokens, sizes), golden["output"], atol=1e-5)


@pytest.mark.slow
def test_binary_masks():
    network, golden = _network("resnet50")
    stages = network.forward_stages(*_clip("c1", 5))
    np.testing.assert_allclose(stages.logits[0, :, None, ::3, ::3], golden["logits.s3"], **TOLERANCE)
    for index in range(4):
        g.assert_summary(golden, f"enc{index}", stages.encoder[index], 1e-4, 1e-4)
        g.assert_summary(golden, f"in_proj{index}", stages.projected[index], 1e-4, 1e-4)
    parts = {"query": stages.query, "memory5": stages.memory, "dec5": stages.decoded}
    for name, tensor in (parts | {"mask_feature": stages.mask_feature}).items():
        g.assert_summary(golden, name, tensor, 1e-4, 2e-4)
    assert torch.equal(network.probability(stages.logits), stages.logits.sigmoid())

    logits = network(*_first(1, _clip("c1-512", 2, 512, 512)))
    np.testing.assert_allclose(logits[0, :, None, ::9, ::9], golden["size512.logits.s9"][:1], **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "form"), [("pvt_v2_b5", "efficient"), ("resnet50", "published")])
def test_oblong_frames(encoder, form):
    network, golden = _network(encoder, form=form)
    logits = network(*_clip("c1-160x256", 2, 160, 256))
    np.testing.assert_allclose(logits[0, :, None, ::3, ::3], golden["nonsquare.logits.s3"], **TOLERANCE)


@pytest.mark.slow
def test_classes():
    network, golden = _network("pvt_v2_b5", 71)
    logits = network(*_first(2, _clip("c1", 5)))
    np.testing.assert_allclose(logits[0, ..., ::21, ::21], golden["logits.s21"][:2], **TOLERANCE)
    two = logits.topk(2, dim=2).values
    decided = (two[:, :, 0] - two[:, :, 1] > 2e-3)[0, :, ::3, ::3].numpy()
    assert decided.mean() > 0.99
    classes = logits.argmax(dim=2)[0, :, ::3, ::3].numpy()
    np.testing.assert_array_equal(classes[decided], golden["argmax.s3"][:2][decided])
    sounds = 1 - logits.double().softmax(dim=2)[:, :, 0]
    np.testing.assert_allclose(network.probability(logits), sounds, atol=1e-6)


@pytest.mark.slow
def test_classes_with_the_vggish_of_the_same_file():
    network, golden = _network("resnet50", 71)
    vggish = VGGish()
    g.fill(vggish, golden, lambda key: f"vggish.{key}")
    log_mel = torch.from_numpy((g.rng("c1/logmel", SALT).standard_normal([5, 1, 96, 64]) - 1).astype(np.float32))
    embedding = vggish(log_mel)
    np.testing.assert_allclose(embedding, golden["vggish.embedding"], rtol=1e-4, atol=1e-4)
    logits = network(g.frames("c1", 5, salt=SALT)[None, :1], embedding[None, :1])
    np.testing.assert_allclose(logits[0, ..., ::42, ::42], golden["from_logmel.logits.s42"][:1], **TOLERANCE)


@pytest.mark.parametrize("classes", [1, 71])
@pytest.mark.parametrize("encoder", ["pvt_v2_b5", "resnet50"])
def test_keys_shapes_and_parameter_counts_are_the_published_ones(encoder, classes):
    record = json.loads((g.GOLDEN / f"state_dict_avsegformer_{encoder}.json").read_text())
    published = {key: shape for key, shape, _ in record["state_dict"]} | {"head.fc.4.weight": [classes, 32, 1, 1]}
    with torch.device("meta"):
        network = create_network("avsegformer", encoder=encoder, classes=classes)
    ours = {_name(encoder)(key): list(value.shape) for key, value in network.state_dict().items()}
    assert ours == {key: shape for key, shape in published.items() if key in ours}
    without_use = re.compile(r"vggish\.|head\.(attn_fc|fpn)\.|backbone\.layer[34]_2\.")
    assert all(without_use.match(key) for key in set(published) - set(ours))
    count = count_parameters(network)
    assert count.inference == record["parameters"]["inference"] + 32 * (classes - 1)
    assert count.published == record["parameters"]["total"] + 64 * (classes - 1)


def test_a_clip_needs_frames_of_a_size_that_halves_five_times():
    network = create_network("avsegformer", encoder="pvt_v2_b0")
    with pytest.raises(ClipShapeError, match="multiples of 32"):
        network(torch.zeros(1, 1, 3, 48, 64), torch.zeros(1, 1, 128))
    assert network(torch.zeros(2, 1, 3, 32, 64), torch.zeros(2, 1, 128)).shape == (2, 1, 32, 64)
