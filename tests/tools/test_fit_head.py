"""A fitted head: it marks the discs of a bundle's clips, and nothing else has changed."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from avsbg.export.graphs import AudioForm
from avsbg.export.weights import from_checkpoints
from avsbg.model import build, fill_from_seed, named_variant
from tools import fit_head


@pytest.mark.slow
def test_the_head_alone_is_fitted_to_mark_the_discs(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_head, "MIN_IOU", 0.5)
    path = tmp_path / "fitted.safetensors"
    command = typer_app()
    options = ["-o", str(path), "--encoder", "pvt_v2_b0", "--size", "64", "--seed", "3"]
    refused = CliRunner().invoke(command, [*options, "--steps", "1"])
    assert "Give more --steps" in str(refused.exception)
    assert not path.exists()
    done = CliRunner().invoke(command, [*options, "--steps", "250"])
    assert done.exit_code == 0, done.output

    variant = named_variant("avs-bg", encoder="pvt_v2_b0")
    random = build(variant)
    fill_from_seed(random, 3)
    graph, _ = from_checkpoints(variant, AudioForm.EMBEDDING, path)
    fitted = graph.network.state_dict()
    changed = {name for name, value in random.state_dict().items() if not torch.equal(value, fitted[name])}
    assert changed == {name for name in fitted if name.startswith("head.")}


def typer_app():
    import typer

    app = typer.Typer()
    app.command()(fit_head.main)
    return app
