"""`avsbg export` as users call it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from avsbg.model import create_network, fill_from_seed, save_checkpoint
from avsbg.runtime.bundle import Bundle
from fixtures.cli import run_avsbg

SMALL = ["--encoder", "pvt_v2_b0", "--audio", "embedding", "--frames", "2", "--size", "32x64"]


@pytest.mark.slow
def test_a_checkpoint_becomes_a_bundle(tmp_path):
    network = create_network("avsbench-without-audio", encoder="pvt_v2_b0")
    fill_from_seed(network, 0)
    save_checkpoint(network, tmp_path / "weights.safetensors")
    target = tmp_path / "out.bundle"
    arguments = ["export", "avsbench-without-audio", *SMALL, "--checkpoint", tmp_path / "weights.safetensors"]
    result = run_avsbg(*arguments, "-o", target)
    assert result.code == 0, result.err
    assert "nodes exported" in result.text
    assert "agrees with PyTorch" in result.text
    assert "parameters" in result.text
    manifest = Bundle.open(target).manifest
    assert manifest.name == "avsbench-without-audio-pvt_v2_b0"
    assert manifest.weights.checkpoints[0].name == "weights.safetensors"
    assert (manifest.clip.frames, manifest.clip.height, manifest.clip.width) == (2, 32, 64)
    assert str(tmp_path) not in json.dumps(manifest.model_dump(mode="json"))
    before = (target / "manifest.json").read_bytes()

    result = run_avsbg(*arguments, "-o", target)
    assert result.code == 1
    assert "exists already" in result.paragraph
    assert "--overwrite" in result.paragraph
    assert (target / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["avs-bgg", "--seed", "0"], "unknown network or variant 'avs-bgg'. Choose one of: avs-bg, avs-bg-without"),
        (["avs-bg", "--seed", "0", "--encoder", "vgg"], "unknown encoder 'vgg'. Choose one of: pvt_v2_b0"),
        (["sst", "--seed", "0"], "sst was never released"),
        (["avs-bg"], "exactly one of --checkpoint and --seed"),
        (["avs-bg", "--seed", "0", "--checkpoint", "x.pth"], "exactly one of --checkpoint and --seed"),
        (["avs-bg", "--seed", "0", "--vggish", "x.pth"], "--vggish belongs to --checkpoint"),
        (["avs-bg", "--seed", "0", "--size", "100"], "multiples of 32, not 100 x 100"),
        (["avs-bg", "--seed", "0", "--frames", "1"], "at least 2 frames, not 1"),
        (["avs-bg", *SMALL, "--checkpoint", "missing.pth"], "missing.pth does not exist"),
        (["avs-bg", "--encoder", "pvt_v2_b0", "--checkpoint", "x.pth"], "needs VGGish's weights"),
    ],
)
def test_mistakes_are_told_in_a_paragraph(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = run_avsbg("export", *arguments, "-o", tmp_path / "new")
    assert result.code == 1
    assert message in result.paragraph
    assert "Traceback" not in result.paragraph
    assert not list(tmp_path.iterdir())


def test_a_pickle_that_is_no_checkpoint_is_not_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return (print, ("harm",))

    torch.save(Harm(), tmp_path / "harm.pth")
    result = run_avsbg("export", "avs-bg", *SMALL, "--checkpoint", tmp_path / "harm.pth", "-o", tmp_path / "new")
    assert result.code == 1
    assert "not unpickled" in result.paragraph
    assert "harm" not in result.text.replace("harm.pth", "")
    assert not (tmp_path / "new").exists()


def test_an_unknown_form_of_sound_lists_the_forms(tmp_path):
    result = run_avsbg("export", "avs-bg", "--seed", 0, "--audio", "mp3", "-o", tmp_path / "new")
    assert result.code == 2
    assert all(form in result.paragraph for form in ("waveform", "log-mel", "embedding"))


@pytest.mark.parametrize("missing", ["torch", "onnxruntime"])
def test_a_machine_without_the_exporters_packages_is_told_what_to_install(tmp_path, missing):
    script = f"import sys; sys.modules.update({missing}=None); from avsbg.cli import main; main()"
    arguments = ["export", "avs-bg", "--seed", "0", "-o", str(tmp_path / "new")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    assert f"exporting needs {missing}" in done.stderr
    assert "avsbg[export,cpu]" in done.stderr
    assert "Traceback" not in done.stderr
