"""LGVT against the released code: logits for given and for zero latents, sizes, keys, its latent's prior."""

from __future__ import annotations

import json
import re
from functools import partial

import numpy as np
import pytest
import torch

from avsbg.model import create_network
from avsbg.model.factory import formula_tensor
from avsbg.model.lgvt import LatentPrior
from avsbg.model.published import published_key
from fixtures import golden as g

SALT = "avsbg-table2"
TOLERANCE = {"rtol": 1e-4, "atol": 3e-4}
_name = partial(published_key, network="lgvt", encoder="")


@pytest.mark.slow
def test_logits():
    golden = g.load("lgvt_c1")
    network = create_network("lgvt")
    g.fill(network, golden, _name)
    frames = g.frames("c1", 5, 384, 384, SALT)[None, :1]
    latent = torch.from_numpy(golden["langevin.z"][-1:, :1])
    logits = network(frames, latent=latent)
    np.testing.assert_allclose(logits[0, :, None, ::6, ::6], golden["logits.s6"][:1], **TOLERANCE)
    zero = network(frames)
    np.testing.assert_allclose(zero[0, :, None, ::6, ::6], golden["logits_zero_latent_2frames.s6"][:1], **TOLERANCE)
    resized = network(g.frames("c1-224", 1, 224, 224, SALT)[None], latent=latent)
    np.testing.assert_allclose(resized[0, :, None, ::4, ::4], golden["resized_224_1frame.s4"], **TOLERANCE)


def test_latents_are_drawn_from_the_prior_as_in_the_release():
    golden = g.load("lgvt_c1")
    prior = LatentPrior()
    for key, value in prior.state_dict().items():
        value.copy_(torch.from_numpy(formula_tensor(key, tuple(value.shape), f"{SALT}:ebm", ())))
    noise = torch.from_numpy(g.rng("c1/langevin", SALT).standard_normal([5, 5, 32]).astype(np.float32))
    steps = torch.from_numpy(golden["langevin.z"])
    for step, (latent, energy) in enumerate(zip(steps, golden["langevin.energy"], strict=False)):
        np.testing.assert_allclose(prior(latent), energy, atol=1e-6)
        np.testing.assert_allclose(prior.draw(latent, noise[step : step + 1]), steps[step + 1], atol=1e-6)
    np.testing.assert_allclose(prior.draw(steps[0], noise), steps[-1], atol=1e-6)
    assert sum(parameter.numel() for parameter in prior.parameters()) == 5_701


def test_keys_shapes_and_parameter_counts_are_the_published_ones():
    record = json.loads((g.GOLDEN / "state_dict_lgvt.json").read_text())
    published = {key: shape for key, shape, _ in record["state_dict"]}
    with torch.device("meta"):
        network = create_network("lgvt")
    keys = {_name(key): list(value.shape) for key, value in network.state_dict().items()}
    assert keys == {key: shape for key, shape in published.items() if key in keys}
    unused = re.compile(r"racb_5\.|layer5\.|conv_depth\.|sal_dec\.conv54321\.|.*\.(relative_position_index|attn_mask)$")
    assert all(unused.match(key) for key in set(published) - set(keys))
    assert sum(parameter.numel() for parameter in network.parameters()) == record["parameters"]["inference"]
