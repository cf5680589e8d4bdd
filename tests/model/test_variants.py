"""Every named variant runs, at sizes and clip lengths that the released code does not know."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from avsbg.model import VARIANTS, ClipShapeError, Variant, VariantError, create_network, fill_from_seed, named_variant
from avsbg.model.front_end import WaveformError, log_mel


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.endswith("-resnet50")])
@pytest.mark.parametrize(("clips", "frames", "height", "width"), [(2, 3, 64, 96), (1, 2, 32, 32)])
def test_variant_runs(name, clips, frames, height, width):
    network = create_network(name, encoder="pvt_v2_b0")
    fill_from_seed(network, 0)
    video, sound = torch.randn(clips, frames, 3, height, width), torch.rand(clips, frames, 128)
    logits = network(video, sound)
    assert logits.shape == (clips, frames, height, width)
    assert logits.isfinite().all()
    # clips do not influence one another, and the switches do what they say
    torch.testing.assert_close(network(video[:1], sound[:1]), logits[:1], rtol=1e-4, atol=1e-4)
    uses_audio = not torch.allclose(network(video, sound.flip(2)), logits, atol=1e-4)
    assert uses_audio == network.variant.audio
    published = create_network(name, encoder="pvt_v2_b0", form="published")
    published.load_state_dict(network.state_dict())
    torch.testing.assert_close(published(video, sound), logits, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("encoder", ["pvt_v2_b1", "pvt_v2_b2", "resnet50"])
def test_encoders(encoder):
    network = create_network("avs-bg", encoder=encoder)
    assert network(torch.randn(1, 2, 3, 32, 64), torch.rand(1, 2, 128)).shape == (1, 2, 32, 64)


def test_every_variant_survives_its_record():
    for variant in VARIANTS.values():
        assert Variant.from_dict(variant.to_dict()) == variant


def test_what_is_not_a_variant():
    with pytest.raises(VariantError, match="avs-bg-without-audio"):
        named_variant("avsbgg")
    with pytest.raises(VariantError, match="pvt_v2_b5"):
        named_variant("avs-bg", encoder="vgg16")
    with pytest.raises(VariantError, match="sound"):
        create_network("avs-bg", sound=True)
    with pytest.raises(VariantError, match="correlation"):
        named_variant("avsbench", motion=True)
    with pytest.raises(VariantError, match="audio"):
        named_variant("avs-bg", audio="no")
    with pytest.raises(VariantError, match=r"unknown classes 71\.0"):
        named_variant("avsegformer", classes=71.0)
    with pytest.raises(VariantError, match="fields"):
        Variant.from_dict({"network": "avs-bg"})


@pytest.mark.parametrize(
    ("frames", "audio", "message"),
    [
        ((1, 1, 3, 64, 64), (1, 1, 128), "at least 2 frames"),
        ((1, 2, 3, 60, 64), (1, 2, 128), "60 x 64"),
        ((1, 2, 4, 64, 64), (1, 2, 128), r"\[1, 2, 4, 64, 64\]"),
        ((2, 3, 64, 64), (1, 2, 128), r"\[2, 3, 64, 64\]"),
        ((1, 2, 3, 64, 64), (1, 3, 128), r"\[1, 3, 128\]"),
        ((1, 2, 3, 64, 64), (1, 2, 64), r"\[1, 2, 64\]"),
    ],
)
def test_shapes_that_the_networks_refuse(frames, audio, message):
    for name in ("avs-bg", "avsbench"):
        with pytest.raises(ClipShapeError, match=message):
            create_network(name, encoder="pvt_v2_b0")(torch.zeros(frames), torch.zeros(audio))


@pytest.mark.parametrize("name", ["avs-bg", "3dc", "igan"])
def test_frames_of_bytes_are_refused(name):
    with torch.device("meta"):
        network = create_network(name)
    with pytest.raises(ClipShapeError, match=r"normalised floating-point numbers, not torch\.uint8"):
        network(torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8), *[torch.zeros(1, 2, 128)] * (name == "avs-bg"))


@pytest.mark.parametrize("name", ["avsbench", "3dc"])
def test_a_network_that_mixes_all_frames_encodes_none_by_itself(name):
    with torch.device("meta"):
        network = create_network(name)
    with pytest.raises(VariantError, match=f"{name} encodes no frame by itself: .*frame"):
        network.encode(torch.zeros(1, 3, 64, 64), torch.zeros(1, 128))


def test_waveforms_that_the_front_end_refuses():
    with pytest.raises(WaveformError, match="int32"):
        log_mel(torch.zeros(16000, dtype=torch.int32))
    with pytest.raises(WaveformError, match=r"\[1, 2, 3\]"):
        log_mel(torch.zeros(1, 2, 3))


def test_weights_from_a_seed_depend_on_the_seed_alone():
    first, again, other = (create_network("avs-bg", encoder="pvt_v2_b0") for _ in range(3))
    for network, seed in ((first, 5), (again, 5), (other, 6)):
        fill_from_seed(network, seed)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.state_dict().items())
    assert not torch.equal(first.head[0].weight, other.head[0].weight)


def test_listing_variants_does_not_import_torch():
    code = "import sys, avsbg.model; avsbg.model.named_variant('avs-bg'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
