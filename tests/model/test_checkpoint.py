"""Reading checkpoints: both publications' names, our own, and everything that can be wrong with a file."""

from __future__ import annotations

import argparse
import pickle
import zipfile

import pytest
import torch

from avsbg.model import CheckpointError, VGGish, create_network, fill_from_seed, load_checkpoint, save_checkpoint
from avsbg.model.checkpoint import read_tensors
from avsbg.model.published import published_keys

SMALL = {"encoder": "pvt_v2_b0"}


def _published_state(network):
    return {name: network.state_dict()[key].clone() for key, name in published_keys(network).items()}


def _equal(first, second):
    return all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.fixture(scope="module")
def small():
    """A network that tests do not change."""
    network = create_network("avs-bg", **SMALL)
    fill_from_seed(network, 1)
    return network


@pytest.mark.slow
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


@pytest.mark.slow
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
    torch.save({"weights": small.state_dict()}, tmp_path / "wrapped.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save(small.state_dict(), tmp_path / "whole.pth")
    (tmp_path / "truncated.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    names = ["hostile.pth", "hostile_zip.pth", "empty.pth", "text.pth", "empty.safetensors", "wrapped.pth", "list.pth"]
    for name in [*names, "truncated.pth", "absent.pth"]:
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            load_checkpoint(small, tmp_path / name)
    assert not canary.exists()


_KINDS = {
    "page.pth": (b"<!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "a web page", "Download the file"),
    "page.safetensors": (b"\n <html><body>404</body></html>", "a web page", "Download the file"),
    "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "Git LFS", "git lfs pull"),
    "answer.pth": (b'{"error": "not found"}', "JSON", "Download the file"),
    "packed.pth": (b"\x1f\x8b\x08\0\0\0", "gzip", "gunzip"),
    "keras.pth": (b"\x89HDF\r\n\x1a\n\0\0", "HDF5", r"\.safetensors"),
    "protocol.pth": (pickle.dumps({"a": 1}, protocol=4), "pickle of protocol 4", r"network\.state_dict"),
    "protocol5.pth": (pickle.dumps({"a": 1}, protocol=5), "pickle of protocol 5", r"network\.state_dict"),
    "words.pth": (b"not a checkpoint", "a text file", "Download the file"),
    "nothing.pth": (b"", "an empty file", "Fetch"),
}


@pytest.mark.parametrize("name", _KINDS)
def test_a_foreign_file_is_named_for_what_it_is(tmp_path, name):
    content, kind, hint = _KINDS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"is .*{kind}.*\n?.*{hint}") as raised:
        read_tensors(tmp_path / name)
    assert "weights_only" not in str(raised.value)


def test_checkpoints_of_other_formats_than_their_names_say(tmp_path, small):
    save_checkpoint(small, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"safetensors file under another name.*\n?.*Rename it to a\.safetensors"):
        read_tensors(tmp_path / "a.pth")
    torch.save(small.state_dict(), tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"torch\.save under another name"):
        read_tensors(tmp_path / "b.safetensors")
    torch.save(small.state_dict(), tmp_path / "c.pth", pickle_protocol=4)
    with pytest.raises(CheckpointError, match="pickle of protocol 4"):
        read_tensors(tmp_path / "c.pth")
    with zipfile.ZipFile(tmp_path / "d.pth", "w") as archive:
        archive.writestr("model.pth", b"")
    with pytest.raises(CheckpointError, match="zip archive without"):
        read_tensors(tmp_path / "d.pth")


def test_what_lies_beside_the_tensors_is_named(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": argparse.Namespace()}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"holds argparse\.Namespace beside tensors") as raised:
        read_tensors(tmp_path / "a.pth")
    assert "weights_only" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["module.", "model.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict", "generator"])
def test_wrapped_state_dicts_are_read_as_if_saved_alone(tmp_path, small, prefix, nest):
    state = {prefix + key: value for key, value in _published_state(small).items()}
    torch.save(state if nest is None else {"epoch": 3, nest: state, "optimizer": {"lr": 1.0}}, tmp_path / "a.pth")
    fresh = create_network("avs-bg", **SMALL)
    report = load_checkpoint(fresh, tmp_path / "a.pth")
    assert "".join(report.unwrapped) == (nest or "") + prefix
    assert _equal(small, fresh)


def test_a_part_that_was_compiled_is_read(tmp_path, small):
    state = {key.replace("encoder.", "encoder._orig_mod.", 1): value for key, value in _published_state(small).items()}
    torch.save(state, tmp_path / "a.pth")
    fresh = create_network("avs-bg", **SMALL)
    assert load_checkpoint(fresh, tmp_path / "a.pth").unwrapped == ("._orig_mod",)
    assert _equal(small, fresh)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.int(), r"1 not of real numbers: corr_atten\.2\.weight as int32"),
        (lambda one: one.to(torch.complex64), r"holds corr_atten\.2\.weight as complex64, not as plain numbers"),
        (lambda one: one.to_sparse(), r"holds corr_atten\.2\.weight as sparse_coo, not as plain numbers"),
    ],
)
def test_weights_that_are_no_real_numbers_are_refused_by_name(tmp_path, small, change, message):
    state = _published_state(small)
    torch.save(state | {"corr_atten.2.weight": change(state["corr_atten.2.weight"])}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(create_network("avs-bg", **SMALL), tmp_path / "a.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, small, value, dtype):
    state = _published_state(small)
    state["corr_atten.2.weight"] = state["corr_atten.2.weight"].to(dtype)
    state["corr_atten.2.weight"].view(-1)[0] = value
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"NaN or infinity: corr_atten\.2\.weight, in 1 of"):
        load_checkpoint(create_network("avs-bg", **SMALL), tmp_path / "a.pth")
