"""LVS and MSSL against their released code, with their sound front ends and the published layouts of their files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avsbg.model import ClipShapeError, VariantError, create_network, init_deterministic
from avsbg.model.lvs import LogSpectrogram
from avsbg.model.mssl import LogMelSpectrogram, heat_map, slaney_matrix
from fixtures import golden as g

SALT = "avsbg-table2"
STAGES = ("maxpool", "layer1", "layer2", "layer3", "layer4")


def network_and_golden(name, **switches):
    network = create_network(name, **switches)
    init_deterministic(network, SALT)
    return network, g.load(f"{name}_c1")


def spectrograms(golden):
    spec = g.meta(golden)["spec"]
    name = f"c1{spec.get('name', '/spec')}"
    values = g.rng(name, SALT).standard_normal(spec["shape"]) * spec["scale"] + spec["shift"]
    return torch.from_numpy(values.astype(np.float32)).movedim(1, 0)  # one clip of 5 sounds


def wave(rate, name):
    time = np.arange(5 * rate) / rate
    tone = 0.30 * np.sin(2 * np.pi * 220 * time) + 0.20 * np.sin(2 * np.pi * (500 * time + 150 * time**2))
    warble = 0.15 * np.sin(2 * np.pi * 3300 * time) * np.sin(2 * np.pi * 0.7 * time) ** 2
    return tone + warble + 0.05 * g.rng(name, SALT).standard_normal(5 * rate)


def clip(rows=5, side=224, case="c1"):
    return g.frames(case, rows, side, side, SALT)[None]


def test_lvs():
    network, golden = network_and_golden("lvs")
    stages = network.forward_stages(clip(), spectrograms(golden))
    np.testing.assert_allclose(stages.heat[0, :, None], golden["heat"], rtol=0, atol=5e-6)
    heat = stages.logits * 0.03 + 0.65
    np.testing.assert_allclose(heat[0, :, ::4, ::4], golden["heat_up.s4"], rtol=0, atol=5e-6)
    position = torch.sigmoid((stages.heat - 0.65) / 0.03)
    np.testing.assert_allclose(position[0, :, None], golden["pos"], rtol=0, atol=1e-5)
    for index, name in enumerate(STAGES):
        g.assert_summary(golden, f"img_{name}", stages.frame[index], 1e-4, 1e-4)
        g.assert_summary(golden, f"aud_{name}", stages.sound[index], 1e-4, 1e-4)
    torch.testing.assert_close(network.probability(stages.logits), torch.sigmoid(stages.logits))


def test_the_spectrogram_of_lvs():
    network, golden = network_and_golden("lvs")
    sound = torch.from_numpy(wave(16000, "c1/wave"))[None]
    for front_end, made in ((LogSpectrogram(torch.float64), sound), (LogSpectrogram(), sound.float())):
        spectrogram = front_end(made)
        g.assert_summary(golden, "front_end", spectrogram[0].float(), 0, 2e-5)
        np.testing.assert_allclose(
            spectrogram[0, [0, 1, 2, 10, 50, 128, 200, 256]], golden["front_end.rows"], rtol=0, atol=2e-5
        )
    stages = network.forward_stages(clip(), spectrogram[:, None])  # one sound for all frames
    np.testing.assert_allclose(stages.heat[0, :, None], golden["heat_from_wave"], rtol=0, atol=5e-6)


@pytest.mark.parametrize("form", ["efficient", "published"])
def test_mssl(form):
    network, golden = network_and_golden("mssl", form=form)
    stages = network.forward_stages(clip(), spectrograms(golden))
    found = {"cls_a": stages.class_score, "fine_a": stages.class_feature, "similarity": stages.similarity[0]}
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor, golden[name], rtol=0, atol=2e-5, err_msg=name)
    g.assert_summary(golden, "cam_a", stages.class_map, 1e-4, 1e-4)
    g.assert_summary(golden, "fine_v", stages.frame_feature, 1e-4, 2e-5)
    for index, name in enumerate(STAGES):
        g.assert_summary(golden, f"img_{name}", stages.frame[index], 1e-4, 1e-4)
        g.assert_summary(golden, f"aud_{name}", stages.sound[index], 1e-4, 1e-4)
    heat = network.probability(stages.logits)
    np.testing.assert_allclose(heat[0, :, ::4, ::4], golden["heat_224.s4"], rtol=0, atol=2e-5)

    logits = network(clip(1, 256, "c1-256"), spectrograms(golden)[:, :1])
    heat = network.probability(logits)[0, :, ::4, ::4]
    np.testing.assert_allclose(heat, golden["size256.heat.s4"], rtol=0, atol=2e-5)


def test_classes_that_take_part_in_the_heat_map_of_mssl():
    golden = g.load("mssl_c1")
    score = g.rng("c1/select/cls", SALT).standard_normal([5, 7]) * 1.5 - 0.9
    score[4] -= 6
    similarity = np.maximum(g.rng("c1/select/sim", SALT).standard_normal([5, 7, 14, 14]) * 0.3, 0)
    heat = heat_map(*(torch.from_numpy(x.astype(np.float32)) for x in (similarity, score)), (224, 224))
    np.testing.assert_allclose(heat[:, ::4, ::4], golden["select.heat.s4"], rtol=0, atol=2e-5)
    assert torch.equal(heat_map(torch.zeros(1, 7, 2, 2), torch.zeros(1, 7), (32, 32)), torch.zeros(1, 32, 32))


def test_the_spectrogram_of_mssl():
    network, golden = network_and_golden("mssl")
    np.testing.assert_allclose(slaney_matrix().T[[0, 1, 10, 31, 50, 63]], golden["front_end.mel_basis_rows"], atol=1e-7)
    sound = torch.from_numpy(wave(22050, "c1/wave22050"))[None]
    for front_end, made in ((LogMelSpectrogram(torch.float64), sound), (LogMelSpectrogram(), sound.float())):
        spectrogram = front_end(made)
        assert spectrogram.shape == (1, 251, 64)
        g.assert_summary(golden, "front_end", spectrogram[0].float(), 0, 2e-5)
        np.testing.assert_allclose(
            spectrogram[0, [0, 1, 100, 125, 249, 250]], golden["front_end.rows"], rtol=0, atol=2e-5
        )
    stages = network.forward_stages(clip(), spectrogram[:, None])
    np.testing.assert_allclose(stages.similarity[0], golden["from_wave.similarity"], rtol=0, atol=2e-5)
    silence = LogMelSpectrogram()(torch.zeros(1, 110250))
    torch.testing.assert_close(silence, torch.full((1, 251, 64), -36.04), rtol=0, atol=1e-2)


@pytest.mark.parametrize("name", ["lvs", "mssl"])
def test_what_the_networks_refuse(name):
    network = create_network(name)
    with pytest.raises(ClipShapeError, match="S = 1 or the frames' T = 3"):
        network(torch.zeros(1, 3, 3, 32, 32), torch.zeros(1, 2, 257, 671))
    with pytest.raises(ClipShapeError, match="257, columns" if name == "lvs" else "rows, 64"):
        network(torch.zeros(1, 3, 3, 32, 32), torch.zeros(1, 1, 64, 257))
    with pytest.raises(ClipShapeError, match="multiples of 32"):
        network(torch.zeros(1, 3, 3, 48, 32), torch.zeros(1, 1, 257, 671))
    for switches, message in (
        ({"audio": False}, "not defined without its use of sound"),
        ({"motion": True}, "has no correlation attention"),
        ({"encoder": "resnet50"}, "unknown encoder 'resnet50'"),
        ({"classes": 71}, "has no classes"),
    ):
        with pytest.raises(VariantError, match=message):
            create_network(name, **switches)


def test_a_network_that_was_never_released():
    with pytest.raises(VariantError, match="sst was never released"):
        create_network("sst")


def test_one_sound_for_all_frames_is_each_frames_sound():
    frames = torch.randn(2, 3, 3, 32, 64)
    for name, shape in (("lvs", (257, 671)), ("mssl", (251, 64))):
        network, _ = network_and_golden(name)
        sound = torch.randn(2, 1, *shape)
        torch.testing.assert_close(network(frames, sound), network(frames, sound.expand(-1, 3, -1, -1)))
        assert network(frames, sound.flip(3)).sub(network(frames, sound)).abs().max() > 1e-3
