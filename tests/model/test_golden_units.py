"""Parity of single modules with the released code: the cases in which a whole network would hide a mistake."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from avsbg.model import VGGish, log_mel
from avsbg.model.audio import pca_quantise
from avsbg.model.avs_bg import AudioVisualFusion, CorrelationAttention, unit_norm
from avsbg.model.avsbench import Tpavi
from avsbg.model.clips import split_clips
from avsbg.model.factory import formula_tensor, init_deterministic
from avsbg.model.front_end import LogMel, hann_window, mel_matrix
from avsbg.model.visual_to_audio import VisualToAudio, latent_loss
from fixtures.golden import GOLDEN, SALT, assert_summary, int16, load, masks, normal, rng, waveform

SIZES = ((14, 14), (7, 7), (28, 28), (6, 10))


def _fill(module, keys):
    for key, parameter in module.state_dict().items():
        parameter.copy_(torch.from_numpy(formula_tensor(keys(key), tuple(parameter.shape), SALT)))
    return module.eval()


@pytest.mark.parametrize("materialise", [False, True])
@pytest.mark.parametrize("i", range(4))
def test_correlation_attention(i, materialise):
    golden = load("unit_visual_correlation_u1")
    height, width = SIZES[i]
    attend = _fill(CorrelationAttention(materialise=materialise), lambda key: f"corr_atten.{i}.{key}")
    features = normal("u1", f"corr_feat{i}", [10, 128, height, width], 0.2)
    attended, attention, mean = attend(features, 5)
    np.testing.assert_allclose(mean, golden[f"corr_pooled{i}"], atol=5e-6)
    np.testing.assert_allclose(attention, golden[f"corr_att{i}"], atol=5e-6)
    assert_summary(golden, f"corred{i}", attended, 1e-5, 1e-5)


def _fusion(i):
    return _fill(AudioVisualFusion(), lambda key: f"fusion_modules.{i}.{key.replace('.weight', '.conv.weight')}")


@pytest.mark.parametrize("i", range(4))
def test_fusion(i):
    golden = load("unit_avcorr_u1")
    sound = torch.from_numpy(rng(f"u1/av{i}/audio").random([10, 128]).astype(np.float32))
    sound = unit_norm(sound, dim=1)
    fused, gate = _fusion(i)(normal("u1", f"av_feat{i}", [10, 128, *SIZES[i]]), sound)
    np.testing.assert_allclose(gate, golden[f"av_att{i}"], atol=5e-6)
    assert_summary(golden, f"out{i}", fused, 1e-5, 1e-5)
    np.testing.assert_allclose(split_clips(sound, 5).transpose(1, 2), golden[f"audio{i}"], atol=1e-6)


def test_fusion_where_the_epsilon_matters():
    golden = load("unit_avcorr_u1")
    sound = rng("u1/avsmall/audio").random([10, 128]) * np.float32(1e-4)
    sound[3] = 0
    sound = unit_norm(torch.from_numpy(sound.astype(np.float32)), dim=1)
    fused, gate = _fusion(0)(normal("u1", "av_small", [10, 128, 7, 7], 1e-4), sound)
    np.testing.assert_allclose(gate, golden["small.av_att"], atol=5e-6)
    assert_summary(golden, "small.out", fused, 1e-5, 1e-7)


def _tpavi_key(prefix):
    names = {"align.": "align_channel.", "norm.": "norm_layer.", "out.": "W_z.0.", "out_norm.": "W_z.1."}

    def rename(key):
        for ours, published in names.items():
            if key.startswith(ours):
                return prefix + published + key.removeprefix(ours)
        return prefix + key

    return rename


@pytest.mark.parametrize("materialise", [False, True])
@pytest.mark.parametrize(("case", "clips", "height", "width"), [("a", 1, 7, 7), ("b", 2, 14, 14), ("c", 1, 6, 10)])
def test_tpavi(case, clips, height, width, materialise):
    golden = load("unit_tpavi_u1")
    tpavi = _fill(Tpavi(256, materialise=materialise), _tpavi_key("tpavi_b1."))
    visual = normal("u1", f"tpavi_{case}_v", [clips, 256, 5, height, width])
    sound = torch.from_numpy(rng(f"u1/tpavi_{case}/audio").random([5 * clips, 128]).astype(np.float32))
    attended, aligned = tpavi(visual, split_clips(sound, 5))
    np.testing.assert_allclose(aligned, golden[f"{case}.audio"], atol=1e-5)
    assert_summary(golden, f"{case}.z", attended.contiguous(), 1e-5, 1e-5)
    if case == "a":
        np.testing.assert_allclose(attended, golden["a.z"], atol=1e-5)
        np.testing.assert_allclose(tpavi(visual, None)[0], golden["a_visual_only.z"], atol=1e-5)


@pytest.mark.parametrize("materialise", [False, True])
def test_tpavi_of_avs_bg(materialise):
    golden = load("unit_tpavi_u1")
    tpavi = _fill(Tpavi(128, align=False, materialise=materialise), _tpavi_key("bgtpavi."))
    visual = normal("u1", "bgtpavi_v", [10, 128, 7, 7])
    sound = torch.from_numpy(rng("u1/bgtpavi/audio").random([10, 128]).astype(np.float32))
    attended, heard = tpavi(split_clips(visual, 5).transpose(1, 2), split_clips(sound, 5))
    np.testing.assert_allclose(attended.transpose(1, 2).flatten(0, 1), golden["bg_tpavi.z"], atol=1e-5)
    np.testing.assert_allclose(heard.transpose(1, 2), golden["bg_tpavi.audio"], atol=1e-6)


def test_visual_to_audio_with_gradients():
    golden = load("unit_visual_to_audio_u1")
    names = {"mask_encoder.0": "mask_encoder.0.conv", "mask_encoder.1": "mask_encoder.1.conv"}
    names |= {"mask_encoder.2": "mask_encoder.2.conv", "project": "maksed_visual_to_audio"}
    project = _fill(VisualToAudio(128), lambda key: ".".join([names[key.rsplit(".", 1)[0]], key.rsplit(".", 1)[1]]))
    sound = torch.from_numpy(rng("u1/v2a/audio").random([10, 128]).astype(np.float32))
    for task in ("S4", "MS3"):
        features = normal("u1", "v2a_feat", [10, 128, 7, 7], 0.3).requires_grad_()
        mask = normal("u1", "v2a_pred", [10, 1, 224, 224], 1.0, 0.2) if task == "S4" else masks("u1/v2a", 10)
        mask.requires_grad_(task == "S4")
        with torch.enable_grad():
            generated = project(features, mask)
            loss = latent_loss(sound, generated)
            loss.backward()
        np.testing.assert_allclose(generated.detach(), golden[f"{task}.gen_audio"], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(loss.detach(), golden[f"{task}.latent_loss"][0], atol=2e-6)
        assert_summary(golden, f"{task}.grad_feat", features.grad, 1e-4, 1e-6)
        if task == "S4":
            assert_summary(golden, "S4.grad_pred", mask.grad, 1e-4, 1e-8)


@pytest.mark.slow
def test_vggish():
    golden = load("vggish_c1")
    vggish = VGGish().eval()
    published = json.loads((GOLDEN / "state_dict_vggish.json").read_text())
    assert {key: list(value.shape) for key, value in vggish.state_dict().items()} == {k: s for k, s, _ in published}
    init_deterministic(vggish, SALT)
    log_mels = torch.from_numpy((rng("c1/logmel").standard_normal([5, 1, 96, 64]) - 1).astype(np.float32))
    x = log_mels
    for index, layer in enumerate(vggish.features):
        x = layer(x)
        if f"features{index}.shape" in golden:
            assert_summary(golden, f"features{index}", x, 1e-4, 1e-4)
    embedding = vggish(log_mels)
    np.testing.assert_allclose(embedding, golden["embedding"], rtol=1e-4, atol=1e-4)
    assert torch.equal(vggish(log_mels[None]), embedding[None])

    eigen_vectors = torch.from_numpy(formula_tensor("pproc.pca_eigen_vectors", (128, 128), SALT))
    means = torch.from_numpy(formula_tensor("pproc.pca_means", (128, 1), SALT))
    np.testing.assert_allclose(
        pca_quantise(torch.from_numpy(golden["embedding"]), eigen_vectors, means), golden["postprocessed"], atol=0
    )


def test_log_mel_of_every_input_form():
    golden = load("audio_frontend_c1")
    wave = waveform()
    np.testing.assert_allclose(log_mel(wave), golden["logmel_from_float64_wave"], atol=1e-5)
    samples = int16(wave)
    np.testing.assert_allclose(log_mel(samples), golden["logmel_from_int16_wav"], atol=1e-5)
    stereo = np.stack([samples, np.roll(samples, 1000) // 2], axis=1)
    np.testing.assert_allclose(log_mel(stereo), golden["logmel_from_stereo_wav"], atol=1e-5)
    np.testing.assert_allclose(hann_window(), golden["hann400"], atol=1e-12)
    np.testing.assert_allclose(mel_matrix(), golden["mel_matrix"], atol=1e-12)
    for length, count in zip(golden["example_count_lengths"], golden["example_count"], strict=True):
        assert log_mel(np.zeros(int(length))).shape == (count, 1, 96, 64), length
    assert np.allclose(log_mel(np.zeros(80000)), golden["logmel_silence_value"].max(), atol=1e-6)


def test_the_front_end_in_float32_keeps_to_the_reference():
    golden = load("audio_frontend_c1")
    wave = torch.from_numpy(waveform().astype(np.float32))
    patches = LogMel()(torch.stack([wave, wave.roll(7)]), 5)
    assert patches.shape == (2, 5, 1, 96, 64)
    np.testing.assert_allclose(patches[0], golden["logmel_from_float64_wave"], atol=1e-4)
    spectrum = LogMel(torch.float64).spectrum(torch.from_numpy(waveform())[None])[0]
    np.testing.assert_allclose(spectrum[0], golden["stft_frame0"], atol=1e-9)
    np.testing.assert_allclose(spectrum[-1], golden["stft_frame_last"], atol=1e-9)
