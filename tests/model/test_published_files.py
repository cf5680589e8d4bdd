"""The publications' own files, in their layout and with what they carry besides, load into every network."""

from __future__ import annotations

import json
from zlib import crc32

import pytest
import torch

from avsbg.model import CheckpointError, VGGish, count_parameters, create_network, load_checkpoint
from avsbg.model.published import published_keys
from fixtures.golden import GOLDEN

NETWORKS = {
    "lvs": {},
    "mssl": {},
    "3dc": {},
    "igan": {},
    "lgvt": {},
    "avsegformer": {"encoder": "resnet50"},
}
# Entries that publications save beside the state dict, and prefixes of its keys.
LAYOUTS = {"lvs": ("model_state_dict", "module."), "3dc": ("model", "")}


def record_of(name, switches):
    stem = "_".join([name, *switches.values()])
    return json.loads((GOLDEN / f"state_dict_{stem}.json").read_text())


def value_of(key):
    return crc32(key.encode()) % 1000 / 1000


def constant(shape, value, dtype="float32"):
    """A tensor of one value, which takes the space of one."""
    return torch.full((1,) * len(shape), value).to(getattr(torch, dtype.removeprefix("torch."))).expand(shape)


def write_published(path, name, record):
    entry, prefix = LAYOUTS.get(name, (None, ""))
    state = {}
    for key, shape, dtype in record["state_dict"]:
        own = key.replace("encoder.resnet.", "encoder.") if "encoder.resnet.fc" not in key else key
        state[prefix + key] = constant(shape, value_of(own), dtype)
    torch.save(state if entry is None else {entry: state, "epoch": 7}, path)


# The form `published` has parts of its own in two networks.
@pytest.mark.parametrize(
    ("name", "form"), [*((n, "efficient") for n in NETWORKS), ("3dc", "published"), ("igan", "published")]
)
def test_a_published_file(name, form, tmp_path):
    switches = NETWORKS[name]
    record = record_of(name, switches)
    write_published(tmp_path / "published.pth", name, record)
    network = create_network(name, form=form, **switches)
    report = load_checkpoint(network, tmp_path / "published.pth")
    assert report.names == "published"
    names = published_keys(network)
    for key, tensor in network.state_dict().items():
        value = 0.0 if key.endswith("num_batches_tracked") else value_of(names[key])
        assert torch.equal(tensor, torch.full_like(tensor, value)), key
    assert set(report.ignored) == {key for key, _, _ in record["state_dict"]} - set(names.values())
    shapes = {key: shape for key, shape, _ in record["state_dict"]}
    assert {key: list(tensor.shape) for key, tensor in network.state_dict().items()} == {
        key: shapes[names[key]] for key in names
    }
    counts, count = record["parameters"], count_parameters(network)
    assert (count.published, count.inference) == (counts["total"], counts["inference"])


def test_a_file_that_names_the_encoder_by_its_other_name_alone(tmp_path):
    record = record_of("3dc", {})
    kept = [row for row in record["state_dict"] if not row[0].startswith("encoder.") or "resnet" in row[0]]
    write_published(tmp_path / "published.pth", "3dc", {"state_dict": kept})
    network = create_network("3dc")
    load_checkpoint(network, tmp_path / "published.pth")
    assert float(network.encoder.conv1.weight.flatten()[0]) == pytest.approx(value_of("encoder.conv1.weight"))


def test_the_vggish_in_the_file_of_avsegformer(tmp_path):
    record = record_of("avsegformer", NETWORKS["avsegformer"])
    keys = {key for key, _, _ in record["state_dict"]}
    for key, tensor in VGGish().state_dict().items():
        if f"vggish.{key}" not in keys:
            record["state_dict"].append([f"vggish.{key}", list(tensor.shape), "float32"])
    write_published(tmp_path / "published.pth", "avsegformer", record)
    vggish, network = VGGish(), create_network("avsegformer", encoder="resnet50")
    load_checkpoint(vggish, tmp_path / "published.pth")
    for key, tensor in vggish.state_dict().items():
        assert torch.equal(tensor, torch.full_like(tensor, value_of(f"vggish.{key}")))
    load_checkpoint(network, tmp_path / "published.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_checkpoint(create_network("avsegformer", encoder="pvt_v2_b5"), tmp_path / "published.pth")
    write_published(tmp_path / "lvs.pth", "lvs", record_of("lvs", {}))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_checkpoint(vggish, tmp_path / "lvs.pth")
