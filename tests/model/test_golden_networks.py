"""Parity of whole networks with the released code, stage by stage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from avsbg.model import count_parameters, create_network, init_deterministic
from avsbg.model.clips import split_clips
from avsbg.model.published import ignored_keys, published_keys
from avsbg.model.visual_to_audio import latent_loss
from fixtures.golden import GOLDEN, SALT, assert_summary, audio, frames, load, masks

pytestmark = pytest.mark.slow

CASES = {"c1": 1, "b2": 2}
ENCODERS = ("pvt_v2_b5", "resnet50")


def _run(name, encoder, case, **switches):
    network = create_network(name, encoder=encoder, **switches)
    init_deterministic(network, SALT)
    rows = 5 * CASES[case]
    return network, network.forward_stages(split_clips(frames(case, rows), 5), split_clips(audio(case, rows), 5))


def _assert_logits(stages, golden, case):
    logits = stages.logits.reshape(5 * CASES[case], 1, 224, 224)
    expected = golden["logits"] if case == "c1" else golden["logits.s3"]
    logits = logits if case == "c1" else logits[..., ::3, ::3]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("case", CASES)
def test_avs_bg(encoder, case):
    golden = load(f"avsbg_{encoder}_{case}")
    network, stages = _run("avs-bg", encoder, case)
    rows = 5 * CASES[case]
    _assert_logits(stages, golden, case)
    for i in range(4):
        assert_summary(golden, f"enc{i}", stages.encoder[i], 1e-4, 1e-4)
        assert_summary(golden, f"neck{i}", stages.neck[i], 1e-4, 2e-4)
        assert_summary(golden, f"fused{i}", stages.fused[i], 1e-4, 5e-6)
        assert_summary(golden, f"corred{i}", stages.correlated[i], 1e-4, 5e-6)
        assert_summary(golden, f"dec{i}", stages.decoder[i], 1e-4, 2e-4)
        np.testing.assert_allclose(stages.fusion_gate[i], golden[f"av_att{i}"], atol=5e-6)
        np.testing.assert_allclose(stages.mean_correlation[i], golden[f"corr_pooled{i}"], atol=5e-6)
        np.testing.assert_allclose(stages.correlation_attention[i], golden[f"corr_att{i}"], atol=5e-6)
    returned = split_clips(stages.audio, 5).transpose(1, 2)
    np.testing.assert_allclose(returned, golden["audio_ret0.full"], atol=1e-6)

    for task, mask in (("S4", stages.logits.reshape(rows, 1, 224, 224)), ("MS3", masks(case, rows))):
        generated = network.visual_to_audio(stages.correlated[3], mask)
        np.testing.assert_allclose(generated, golden[f"{task}.gen_audio"], rtol=1e-4, atol=1e-4)
        loss = latent_loss(audio(case, rows), generated)
        np.testing.assert_allclose(loss, golden[f"{task}.latent_loss"][0], atol=2e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("case", CASES)
def test_avsbench(encoder, case):
    golden = load(f"avsbench_{encoder}_{case}")
    _, stages = _run("avsbench", encoder, case)
    _assert_logits(stages, golden, case)
    for i in range(4):
        assert_summary(golden, f"enc{i}", stages.encoder[i], 1e-4, 1e-4)
        assert_summary(golden, f"neck{i}", stages.neck[i], 1e-4, 2e-4)
        tpavi = split_clips(stages.attended[i], 5).transpose(1, 2)
        assert_summary(golden, f"tpavi{i}", tpavi.contiguous(), 1e-4, 2e-4)
        assert_summary(golden, f"fmap_returned{i}", stages.attended[i].relu(), 1e-4, 2e-4)
        assert_summary(golden, f"path{4 - i}", stages.decoder[i], 1e-4, 2e-4)
        np.testing.assert_allclose(stages.audio[i], golden[f"audio_aligned{i}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["avs-bg", "avsbench"])
def test_the_published_form_is_the_same_function(name):
    stem = name.replace("-", "")
    _, stages = _run(name, "resnet50", "c1", form="published")
    _assert_logits(stages, load(f"{stem}_resnet50_c1"), "c1")


@pytest.mark.parametrize("name", ["avs-bg", "avsbench"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_keys_shapes_and_parameter_counts_are_the_published_ones(name, encoder):
    stem = f"{name.replace('-', '')}_{encoder}"
    published = {key: shape for key, shape, _ in json.loads((GOLDEN / f"state_dict_{stem}.json").read_text())}
    network = create_network(name, encoder=encoder)
    ours = {renamed: list(network.state_dict()[key].shape) for key, renamed in published_keys(network).items()}
    assert ours == {key: shape for key, shape in published.items() if key in ours}
    never_used = set(published) - set(ours)
    assert set(ignored_keys(network, never_used)) == never_used

    totals = json.loads((GOLDEN / "parameter_counts.json").read_text())[stem]
    assert count_parameters(network).published == totals["parameters"]


def test_parameters_that_a_mask_depends_on():
    network = create_network("avs-bg")
    assert count_parameters(network).inference == 85_134_281
    logits = network.train().forward(torch.randn(1, 2, 3, 32, 32).requires_grad_(), torch.rand(1, 2, 128))
    assert logits.shape == (1, 2, 32, 32)
    with torch.enable_grad():
        network.forward(torch.randn(2, 2, 3, 32, 32), torch.rand(2, 2, 128)).sum().backward()
    reached = sum(p.numel() for p in network.parameters() if p.grad is not None)
    assert reached == count_parameters(network).inference
