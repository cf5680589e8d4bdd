"""The weights that training starts from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from avsbg.model import build, save_checkpoint
from avsbg.model.audio import CompactAudioEncoder, ZeroAudioEncoder
from avsbg.model.checkpoint import CheckpointError
from avsbg.model.encoders import Encoder
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.initialization import RANDOM, _released_names, initialize_modules, load_encoder
from avsbg.model.training.recipes import Recipe
from avsbg.model.variants import named_variant

RECIPE = Recipe("s4", named_variant("avs-bg", encoder="pvt_v2_b0"), epochs=1, batch=1, audio_encoder="compact")


def _released(encoder: str) -> tuple[Encoder, dict[str, torch.Tensor]]:
    """An encoder and its weights under the names of its own release, with the classifier that a release has."""
    module = Encoder(encoder)
    names = _released_names(module.network.state_dict(), encoder)
    tensors = {names[key]: value for key, value in module.network.state_dict().items()}
    return module, {**tensors, "head.weight": torch.zeros(1000, 4), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("encoder", ["pvt_v2_b0", "resnet50", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("names", ["released", "timm"])
def test_encoder_weights_of_either_naming(tmp_path, encoder, names):
    source, released = _released(encoder)
    torch.save(released if names == "released" else source.network.state_dict(), tmp_path / "weights.pth")
    recipe = replace(RECIPE, variant=replace(RECIPE.variant, encoder=encoder))
    begun = initialize_modules(recipe, encoder=str(tmp_path / "weights.pth"))
    loaded = begun.network.encoder.network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in source.network.state_dict().items())
    assert begun.origin["encoder"].startswith("weights.pth sha256:")


def test_the_names_that_releases_give():
    names = {
        "pvt_v2_b0": ("stages.1.blocks.0.mlp.dwconv.weight", "block2.0.mlp.dwconv.dwconv.weight"),
        "resnet50": ("layer3.5.conv2.weight", "layer3.5.conv2.weight"),
        "tf_efficientnet_lite0": ("blocks.2.0.conv_pwl.weight", "_blocks.3._project_conv.weight"),
    }
    for encoder, (timm_name, released) in names.items():
        assert _released_names(Encoder(encoder).network.state_dict(), encoder)[timm_name] == released


def test_encoder_weights_that_do_not_fit(tmp_path):
    _, tensors = _released("pvt_v2_b0")
    path = tmp_path / "weights.pth"
    spoiled = {
        "1 missing: norm1.weight": {key: value for key, value in tensors.items() if key != "norm1.weight"},
        "1 unexpected: block9.weight": {**tensors, "block9.weight": torch.zeros(1)},
        "1 of another shape: norm1.weight": {**tensors, "norm1.weight": torch.zeros(1)},
    }
    for reason, content in spoiled.items():
        torch.save(content, path)
        module = Encoder("pvt_v2_b0")
        before = {key: value.clone() for key, value in module.state_dict().items()}
        with pytest.raises(CheckpointError, match=reason):
            load_encoder(module, "pvt_v2_b0", path)
        assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_random_weights_depend_on_the_seed_alone():
    first, again, other = (
        initialize_modules(recipe, encoder=RANDOM).network.state_dict()
        for recipe in (RECIPE, RECIPE, replace(RECIPE, seed=1))
    )
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert any(not torch.equal(value, other[key]) for key, value in first.items())


def test_training_goes_on_from_a_whole_network(tmp_path):
    network = build(RECIPE.variant)
    save_checkpoint(network, tmp_path / "s4.safetensors")
    begun = initialize_modules(
        replace(RECIPE, task="ms3", from_s4=True), encoder=RANDOM, network=tmp_path / "s4.safetensors"
    )
    state = begun.network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    with pytest.raises(TrainingError, match="--init"):
        initialize_modules(replace(RECIPE, from_s4=True), encoder=RANDOM)


def test_audio_encoders():
    log_mel = torch.randn(2, 5, 1, 96, 64)
    compact = CompactAudioEncoder().eval()
    embedding = compact(log_mel)
    assert embedding.shape == (2, 5, 128)
    assert embedding.min() >= 0
    torch.testing.assert_close(compact(log_mel[0]), embedding[0])
    assert isinstance(initialize_modules(RECIPE, encoder=RANDOM).audio_encoder, CompactAudioEncoder)
    mute = replace(RECIPE, variant=named_variant("avs-bg-without-audio", encoder="pvt_v2_b0"), audio_encoder="vggish")
    zeros = initialize_modules(mute, encoder=RANDOM).audio_encoder
    assert isinstance(zeros, ZeroAudioEncoder)
    assert torch.equal(zeros(log_mel), torch.zeros(2, 5, 128))
    with pytest.raises(TrainingError, match="--vggish"):
        initialize_modules(replace(RECIPE, audio_encoder="vggish"), encoder=RANDOM)
