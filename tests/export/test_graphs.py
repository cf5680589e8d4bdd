"""The parts of a graph around the network, and the sources of its weights."""

from __future__ import annotations

import pytest
import torch

from avsbg.export.graphs import AudioForm, ClipGraph, needs_audio_encoder
from avsbg.export.shape import ClipShape, ExportError
from avsbg.export.weights import from_checkpoints, from_seed, load_graph_weights
from avsbg.model import CheckpointError, create_network, fill_from_seed, log_mel, named_variant, save_checkpoint

VARIANT = named_variant("avs-bg", encoder="pvt_v2_b0")


@pytest.fixture(scope="module")
def network():
    made = create_network("avs-bg", encoder="pvt_v2_b0")
    fill_from_seed(made, 3)
    return made


def test_frames_are_normalised_as_published(network):
    frames = torch.randint(0, 256, (2, 2, 32, 64, 3), dtype=torch.uint8)
    normalised, _ = ClipGraph(network, AudioForm.EMBEDDING).network_inputs(frames, torch.rand(2, 2, 128))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((frames.double() / 255 - mean) / std).permute(0, 1, 4, 2, 3)
    assert normalised.shape == (2, 2, 3, 32, 64)
    torch.testing.assert_close(normalised.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_three_forms_of_sound_agree():
    waveform = 0.1 * torch.randn(2, 2 * 16000)
    module, _ = from_seed(VARIANT, AudioForm.WAVEFORM, 3)
    patches = torch.stack([log_mel(row)[:2] for row in waveform])
    frames = torch.randint(0, 256, (2, 2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        _, embedding = module.network_inputs(frames, waveform)
        of_waveform, probability = module(frames, waveform)
        of_log_mel, _ = ClipGraph(module.network, AudioForm.LOG_MEL, module.audio_encoder)(frames, patches)
        of_embedding, _ = ClipGraph(module.network, AudioForm.EMBEDDING)(frames, embedding)
    torch.testing.assert_close(of_log_mel, of_waveform, rtol=0, atol=1e-4)
    torch.testing.assert_close(of_embedding, of_waveform, rtol=0, atol=1e-6)
    torch.testing.assert_close(probability, torch.sigmoid(of_waveform))


def test_a_variant_without_audio_takes_sound_and_ignores_it():
    variant = named_variant("avs-bg-without-audio", encoder="pvt_v2_b0")
    assert not needs_audio_encoder(variant, AudioForm.WAVEFORM)
    module, _ = from_seed(variant, AudioForm.WAVEFORM, 3)
    frames = torch.randint(0, 256, (1, 2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(module(frames, torch.randn(1, 32000))[0], module(frames, torch.zeros(1, 32000))[0])


def test_sound_that_needs_an_audio_encoder_is_refused_without_it(network):
    with pytest.raises(ValueError, match="log_mel needs an audio encoder"):
        ClipGraph(network, AudioForm.LOG_MEL)


def test_a_seed_makes_the_same_network_again():
    one, record = from_seed(VARIANT, AudioForm.EMBEDDING, 5)
    two, _ = from_seed(VARIANT, AudioForm.EMBEDDING, 5)
    other, _ = from_seed(VARIANT, AudioForm.EMBEDDING, 6)
    weights, again, different = (module.network.head[0].weight for module in (one, two, other))
    assert torch.equal(weights, again)
    assert not torch.equal(weights, different)
    assert record.seed == 5


def test_a_checkpoint_is_recorded_by_name_and_hash(network, tmp_path):
    path = tmp_path / "trained.safetensors"
    save_checkpoint(network, path)
    module, record = from_checkpoints(VARIANT, AudioForm.EMBEDDING, path)
    assert torch.equal(module.network.head[0].weight, network.head[0].weight)
    (checkpoint,) = record.checkpoints
    assert (record.seed, checkpoint.role, checkpoint.name) == (None, "network", "trained.safetensors")
    with pytest.raises(ExportError, match="--vggish"):
        from_checkpoints(VARIANT, AudioForm.WAVEFORM, path)
    with pytest.raises(ExportError, match=r"other.pth would go nowhere"):
        from_checkpoints(VARIANT, AudioForm.EMBEDDING, path, tmp_path / "other.pth")
    with pytest.raises(ExportError, match="--audio-weights"):
        from_checkpoints(VARIANT, AudioForm.LOG_MEL, path, audio_encoder="compact")
    with pytest.raises(CheckpointError, match="does not fit"):
        from_checkpoints(named_variant("avsbench", encoder="pvt_v2_b0"), AudioForm.EMBEDDING, path)


def test_a_graph_of_another_network_is_refused(network):
    module = ClipGraph(network, AudioForm.EMBEDDING)
    weights = dict(module.state_dict())
    del weights["network.head.0.weight"]
    with pytest.raises(ExportError, match=r"lacks 1 weights of the network, network\.head\.0\.weight"):
        load_graph_weights(module, weights)


@pytest.mark.parametrize(
    ("frames", "size", "message"),
    [
        (5, "100", "not 100 x 100"),
        (5, "224x100", "not 224 x 100"),
        (5, "0", "not 0 x 0"),
        (1, "224", "at least 2 frames, not 1"),
        (5, "big", "not 'big'"),
        (5, "224x", None),
        (5, "x224", "not 'x224'"),
        (5, "-32", "not '-32'"),
    ],
)
def test_sizes_as_users_write_them(frames, size, message):
    if message is None:
        assert ClipShape.parse(frames, size) == ClipShape()
        return
    with pytest.raises(ExportError, match=message):
        ClipShape.parse(frames, size)
