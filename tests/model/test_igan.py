"""iGAN against the released code: logits for given and for zero latents, sizes, keys, dead stage."""

from __future__ import annotations

import json
import re
from functools import partial

import numpy as np
import pytest
import torch

from avsbg.model import ClipShapeError, create_network
from avsbg.model.published import published_key
from fixtures import golden as g

SALT = "avsbg-table2"
TOLERANCE = {"rtol": 1e-4, "atol": 3e-4}
_name = partial(published_key, network="igan", encoder="")


@pytest.fixture(scope="module")
def golden():
    return g.load("igan_c1")


@pytest.fixture(scope="module")
def network(golden):
    with torch.no_grad():
        network = create_network("igan", form="published")
        g.fill(network, golden, _name)
    return network


@pytest.mark.slow
def test_frames_of_its_own_size(network, golden):
    frames = g.frames("c1", 5, 384, 384, SALT)[None, :1]
    latent = torch.from_numpy(g.rng("c1/latent", SALT).standard_normal([1, 5, 18]).astype(np.float32))[:, :1]
    logits = network(frames, latent=latent)
    np.testing.assert_allclose(logits[0, :, None, ::6, ::6], golden["logits.s6"][:1], **TOLERANCE)
    zero = network(frames)
    np.testing.assert_allclose(zero[0, :, None, ::6, ::6], golden["logits_zero_latent_2frames.s6"][:1], **TOLERANCE)
    assert torch.equal(network.probability(logits), logits.sigmoid())


@pytest.mark.slow
def test_frames_of_another_size_and_the_efficient_form(network, golden):
    efficient = create_network("igan")
    efficient.load_state_dict(network.state_dict(), strict=False)
    frames = g.frames("c1-224", 1, 224, 224, SALT)[None]
    latent = torch.from_numpy(g.rng("c1/latent", SALT).standard_normal([1, 5, 18]).astype(np.float32))[:, :1]
    logits = efficient.eval()(frames, latent=latent)
    np.testing.assert_allclose(logits[0, :, None, ::4, ::4], golden["resized_224_1frame.s4"], **TOLERANCE)


def test_keys_shapes_and_parameter_counts_are_the_published_ones():
    record = json.loads((g.GOLDEN / "state_dict_igan.json").read_text())
    constant = re.compile(r".*\.(relative_position_index|attn_mask)$")
    published = {key: shape for key, shape, _ in record["state_dict"] if not constant.match(key)}
    counts = {}
    for form in ("published", "efficient"):
        with torch.device("meta"):
            network = create_network("igan", form=form)
        keys = {_name(key): list(value.shape) for key, value in network.state_dict().items()}
        assert keys == {key: shape for key, shape in published.items() if key in keys}
        assert all(key.startswith("backbone.layers.3.blocks.") for key in set(published) - set(keys))
        counts[form] = sum(parameter.numel() for parameter in network.parameters())
        assert form == "efficient" or len(keys) == len(published)
    assert counts == {"published": record["parameters"]["total"], "efficient": record["parameters"]["inference"]}


def test_a_latent_of_another_shape_is_refused():
    with torch.device("meta"):
        network = create_network("igan")
    for shape in ((1, 2, 32), (1, 3, 18), (2, 18), (2, 2, 18)):
        with pytest.raises(ClipShapeError, match=r"\[B, T, 18\] with the frames' B = 1 and T = 2"):
            network(torch.zeros(1, 2, 3, 40, 50), latent=torch.zeros(shape))
