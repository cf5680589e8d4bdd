"""3DC against the released code: every level, logits, keys, and the published form's unused scores."""

from __future__ import annotations

import json
import re
from functools import partial

import numpy as np
import pytest
import torch

from avsbg.model import create_network
from avsbg.model.published import published_key
from fixtures import golden as g

SALT = "avsbg-table2"
_name = partial(published_key, network="3dc", encoder="")


@pytest.mark.slow
def test_logits_and_levels():
    golden = g.load("3dc_c1")
    network = create_network("3dc", form="published")
    g.fill(network, golden, _name)
    stages = network.forward_stages((0.5 + 0.2 * g.frames("c1", 5, salt=SALT))[None])
    expected = golden["logit_difference.s4"]
    np.testing.assert_allclose(stages.logits[..., ::4, ::4], expected, rtol=1e-4, atol=3e-4)
    probability = network.probability(stages.logits)
    np.testing.assert_allclose(probability[..., ::4, ::4], golden["probability.s4"], atol=1e-4)
    names = ("stem", "r2", "r3", "r4", "r5", "gc", "m4", "m3", "m2")
    tensors = (stages.stem, *stages.encoder, stages.context, *stages.decoder[1:])
    for name, tensor in zip(names, tensors, strict=True):
        g.assert_summary(golden, name, tensor.contiguous(), 1e-4, 3e-4)


def test_keys_shapes_and_parameter_counts_are_the_published_ones():
    record = json.loads((g.GOLDEN / "state_dict_3dc.json").read_text())
    published = {key: shape for key, shape, _ in record["state_dict"]}
    counts = {}
    for form in ("published", "efficient"):
        with torch.device("meta"):
            network = create_network("3dc", form=form)
        keys = {_name(key): list(value.shape) for key, value in network.state_dict().items()}
        assert keys == {key: shape for key, shape in published.items() if key in keys}
        unused = r"encoder\.(resnet|conv1_p|mean|std)\b" + (r"|decoders\.0\.pred[345]\." if form == "efficient" else "")
        assert all(re.match(unused, key) for key in set(published) - set(keys))
        counts[form] = sum(parameter.numel() for parameter in network.parameters())
    dead = record["parameters"]["dead"]
    never_called = dead["encoder.conv1_p.weight"] + dead["encoder.resnet.fc"]
    total, needed = record["parameters"]["total"], record["parameters"]["inference"]
    assert counts == {"published": total - never_called, "efficient": needed}


def test_clips_of_every_length():
    network = create_network("3dc").eval()
    assert network(torch.rand(2, 1, 3, 32, 64)).shape == (2, 1, 32, 64)
    assert network(torch.rand(1, 6, 3, 32, 32)).shape == (1, 6, 32, 32)
