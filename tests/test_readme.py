"""Every command of the README runs as it is written, in its order, on a small network in place of the full one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# Options that make an export take seconds; everything else runs as written.
SMALL = ["--encoder", "pvt_v2_b0", "--size", "64", "--frames", "2"]


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def _commands():
    blocks = [line for block in _blocks("sh") for line in block.splitlines() if line.strip()]
    # The one that stands alone: an export of the reader's own checkpoint.
    return re.findall(r"^    (avsbg export .*)$", README, flags=re.MULTILINE) + blocks


def _write_checkpoints(folder):
    """The files of a reader's own checkpoint, of a small network; VGGish's tensors take the space of one value."""
    import torch

    from avsbg.model import VGGish, create_network, fill_from_seed

    network = create_network("avs-bg", encoder="pvt_v2_b0")
    fill_from_seed(network, 0)
    torch.save(network.state_dict(), folder / "S4_best.pth")
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in VGGish().state_dict().items()}
    vggish = {name: torch.full((1,) * len(shape), 1e-3).expand(shape) for name, shape in shapes.items()}
    torch.save(vggish, folder / "pytorch_vggish.pth")


@pytest.mark.slow
def test_the_commands_run(tmp_path, monkeypatch):
    sample = subprocess.run(
        [sys.executable, ROOT / "scripts" / "sample_video.py"], capture_output=True, text=True, check=True
    )
    shutil.copy(sample.stdout.strip(), tmp_path / "video.mp4")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for folder in ("model", "docs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    _write_checkpoints(tmp_path)
    commands = _commands()
    assert "--checkpoint" in commands[0]
    verbs = {"export", "verify", "inspect", "run", "visualize", "quantize", "bench", "doctor"}
    assert {shlex.split(command)[1] for command in commands} == verbs
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "avsbg", command
        if words[1] == "export" and words[2] in ("avs-bg", "avsbench"):
            words += SMALL
        finished = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    assert (tmp_path / "my.bundle" / "manifest.json").is_file()
    assert (tmp_path / "masks" / "overlay.mp4").stat().st_size > 0
    assert (tmp_path / "rows" / "rows.jsonl").stat().st_size > 0
    (example,) = _blocks("python")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), namespace)
    assert namespace["frame"].mask.shape == (720, 1280)


PAGES = ["README.md", "ARCHITECTURE.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", PAGES)
def test_links_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith(("http", "../../actions/")):  # which the host answers
            assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}, which does not exist"


def test_make_targets_and_tools_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^    |`)make ([a-z0-9-]+)", README, flags=re.MULTILINE))
    assert {"demo", "table7"} <= targets <= set(re.findall(r"^([a-z0-9-]+):", makefile, flags=re.MULTILINE))
    tools = re.findall(r"python -m tools\.(\w+)", README)
    assert tools and all((ROOT / "tools" / f"{name}.py").is_file() for name in tools)


def test_verbs_that_the_architecture_names_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    avsbg = Path(sys.executable).parent / "avsbg"
    listed = subprocess.run([avsbg, "--help"], capture_output=True, text=True, check=True).stdout
    for verb in re.findall(r"avsbg ([a-z]+)", text):
        assert verb in listed
