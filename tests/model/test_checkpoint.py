"""Reading checkpoints: both publications' names, our own, and everything that can be wrong with a file."""

from __future__ import annotations

import pickle

import pytest
import torch

from avsbg.model import CheckpointError, VGGish, create_network, fill_from_seed, load_checkpoint, save_checkpoint
from avsbg.model.published import published_keys

SMALL = {"encoder": "pvt_v2_b0"}


def _published_state(network):
    return {name: network.state_dict()[key].clone() for key, name in published_keys(network).items()}


def _equal(first, second):
    return all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.fixture
def small():
    network = create_network("avs-bg", **SMALL)
    fill_from_seed(network, 1)
    return network


@pytest.mark.parametrize("name", ["avs-bg", "avsbench"])
@pytest.mark.parametrize("encoder", ["pvt_v2_b0", "resnet50"])
def test_published_names_with_their_unused_tensors(tmp_path, name, encoder):
    network = create_network(name, encoder=encoder)
    fill_from_seed(network, 3)
    unused = {
        "avs-bg": {"audio_neck.weight": torch.zeros(128, 128)},
        "avsbench": {"path4.resConfUnit1.conv1.bias": torch.zeros(256), "resnet.layer3_2.0.bn1.bias": torch.zeros(4)},
    }[name]
    torch.save(_published_state(network) | unused, tmp_path / "a.pth")
    fresh = create_network(name, encoder=encoder)
    report = load_checkpoint(fresh, tmp_path / "a.pth")
    assert report.names == "published"
    assert set(report.ignored) == set(unused)
    assert _equal(network, fresh)


def test_an_ablated_variant_reads_the_full_checkpoint(tmp_path, small):
    torch.save(_published_state(small), tmp_path / "a.pth")
    ablated = create_network("avs-bg-without-audio", motion=False, **SMALL)
    report = load_checkpoint(ablated, tmp_path / "a.pth")
    assert any(key.startswith("corr_atten.") for key in report.ignored)
    assert all(torch.equal(value, small.state_dict()[key]) for key, value in ablated.state_dict().items())


def test_round_trip_through_safetensors(tmp_path, small):
    save_checkpoint(small, tmp_path / "w.safetensors")
    fresh = create_network("avs-bg", **SMALL)
    assert load_checkpoint(fresh, tmp_path / "w.safetensors").names == "avsbg"
    assert _equal(small, fresh)
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        save_checkpoint(small, tmp_path / "w.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_vggish_with_the_release_files_extra_keys(tmp_path):
    vggish = VGGish()
    state = vggish.state_dict() | {"pproc.pca_means": torch.zeros(128, 1)}
    torch.save(state, tmp_path / "v.pth")
    assert load_checkpoint(VGGish(), tmp_path / "v.pth").ignored == ("pproc.pca_means",)


def test_misfits_are_reported_by_name_and_change_nothing(tmp_path, small):
    state = _published_state(small)
    del state["corr_atten.2.weight"]
    state["fusion_modules.1.conv3.conv.weight"] = torch.zeros(1, 31, 1, 1)
    state["surplus.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "a.pth")
    fresh = create_network("avs-bg", **SMALL)
    fill_from_seed(fresh, 2)
    before = {key: value.clone() for key, value in fresh.state_dict().items()}
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(fresh, tmp_path / "a.pth")
    assert raised.value.missing == ("corr_atten.2.weight",)
    assert raised.value.unexpected == ("surplus.weight",)
    assert raised.value.misshaped == {"fusion_modules.1.conv3.conv.weight": ((1, 31, 1, 1), (1, 32, 1, 1))}
    for text in ("corr_atten.2.weight", "surplus.weight", "[1, 31, 1, 1] instead of [1, 32, 1, 1]"):
        assert text in str(raised.value)
    assert all(torch.equal(value, before[key]) for key, value in fresh.state_dict().items())


class _Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_files_that_are_not_checkpoints(tmp_path, small):
    canary = tmp_path / "executed"
    (tmp_path / "hostile.pth").write_bytes(pickle.dumps({"a": _Hostile(canary)}))
    torch.save({"a": _Hostile(canary)}, tmp_path / "hostile_zip.pth")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.safetensors").touch()
    torch.save({"state_dict": small.state_dict()}, tmp_path / "wrapped.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save(small.state_dict(), tmp_path / "whole.pth")
    (tmp_path / "truncated.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    names = ["hostile.pth", "hostile_zip.pth", "empty.pth", "text.pth", "empty.safetensors", "wrapped.pth", "list.pth"]
    for name in [*names, "truncated.pth", "absent.pth"]:
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            load_checkpoint(small, tmp_path / name)
    assert not canary.exists()
