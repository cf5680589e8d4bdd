"""The training loss of whole networks: totals and the gradient of every parameter, as the released code has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avsbg.model import create_network, init_deterministic
from avsbg.model.clips import split_clips
from avsbg.model.published import published_keys
from avsbg.model.training.objective import LossWeights, Objective, loss_terms
from fixtures.golden import SALT, audio, frames, load, masks

WEIGHTS = {"s4": LossWeights(audio_visual=0.0), "ms3": LossWeights(audio_visual=0.5)}
SUPERVISION = {"avs-bg": "sup_loss", "avsbench": "iou_loss"}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["pvt_v2_b5", "resnet50"])
@pytest.mark.parametrize("name", ["avs-bg", "avsbench"])
def test_total_loss_and_the_gradient_of_every_parameter(name, encoder):
    golden = load(f"{name.replace('-', '')}_{encoder}_c1")
    network = create_network(name, encoder=encoder)
    init_deterministic(network, SALT)
    clip, sound, mask = split_clips(frames("c1", 5), 5), split_clips(audio("c1", 5), 5), masks("c1", 5)
    with torch.enable_grad():
        stages = network.forward_stages(clip, sound)
        for task, given in (("s4", mask[:1, 0][None]), ("ms3", mask[:, 0][None])):
            terms = loss_terms(network, stages, sound, given, task=task, weights=WEIGHTS[task])
            _compare_terms(golden, task.upper(), name, terms)
            network.zero_grad()
            terms.total.backward(retain_graph=task == "s4")
            _compare_gradients(golden, task.upper(), network)


def _compare_terms(golden, task, name, terms):
    np.testing.assert_allclose(terms.supervision.detach(), golden[f"{task}.{SUPERVISION[name]}"][0], rtol=1e-5)
    np.testing.assert_allclose(terms.total.detach(), golden[f"{task}.total_loss"][0], rtol=1e-5)
    if task == "MS3":  # on S4 its weight is 0, so it is not computed
        np.testing.assert_allclose(terms.audio_visual.detach(), golden["MS3.sa_loss"][0], rtol=1e-4)
    if name == "avs-bg":
        np.testing.assert_allclose(terms.latent.detach(), golden[f"{task}.latent_loss_train"][0], atol=2e-6)


def _compare_gradients(golden, task, network):
    norms = dict(zip(golden["grad_keys"].tolist(), golden[f"{task}.grad_l2"].tolist(), strict=True))
    published = published_keys(network)
    ours = {
        published[key]: p.grad.double().norm().item() for key, p in network.named_parameters() if p.grad is not None
    }
    assert set(ours) == {key for key, norm in norms.items() if norm >= 0}
    np.testing.assert_allclose(list(ours.values()), [norms[key] for key in ours], rtol=2e-3, atol=1e-6)


class Ears(torch.nn.Linear):
    """A small audio encoder in VGGish's place: one linear layer on the log-mel patch."""

    def __init__(self):
        super().__init__(96 * 64, 128)

    def forward(self, log_mel):
        return super().forward(log_mel.flatten(2)).relu()


def _toy(name):
    network = create_network(name, encoder="pvt_v2_b0")
    return network, torch.zeros(1, 5, 64, 64, 3, dtype=torch.uint8), torch.zeros(1, 5, 1, 96, 64)


def test_a_variant_has_only_the_terms_it_can_have():
    for name in ("avs-bg-without-audio", "avs-bg-without-bg", "avsbench", "avsbench-without-audio"):
        network, clip, log_mel = _toy(name)
        objective = Objective(network, Ears(), task="ms3", weights=LossWeights(audio_visual=0.5))
        terms = objective(clip, log_mel, torch.ones(1, 5, 64, 64))
        assert (terms.audio_visual != 0) == network.variant.audio
        assert terms.latent == 0
        assert terms.total == terms.supervision + 0.5 * terms.audio_visual


def test_a_frozen_audio_encoder_neither_learns_nor_changes_its_mode():
    network, clip, log_mel = _toy("avs-bg-without-bg")
    for trains in (False, True):
        encoder = Ears()
        objective = Objective(
            network, encoder, task="s4", weights=LossWeights(audio_visual=0.0), train_audio_encoder=trains
        ).train()
        assert network.training
        assert encoder.training == trains
        with torch.enable_grad():
            objective(clip, log_mel + torch.rand_like(log_mel), torch.ones(1, 1, 64, 64)).total.backward()
        assert any(p.grad is not None for p in encoder.parameters()) == trains
