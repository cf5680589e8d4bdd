"""Graphs read from a bundle whose files have a second hard link, as in a copy by `cp -al`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from avsbg.export.editor import load_folded, load_graph
from avsbg.export.precision.graphs import add_graph
from avsbg.export.sessions import temporary_session
from avsbg.export.weights import read_graph_weights
from avsbg.runtime.bundle import Bundle, sha256, update_bundle
from fixtures.cli import run_avsbg


@pytest.fixture
def linked(smallest, tmp_path):
    """A bundle that shares every file with another; tests must leave the other as it is."""
    return Path(shutil.copytree(smallest.bundle.path, tmp_path / "linked", copy_function=os.link))


def test_a_bundle_that_shares_its_files_is_converted_and_the_other_stays(smallest, linked):
    other = smallest.bundle.path
    before = {name: sha256(other / name) for name in smallest.bundle.manifest.files}
    result = run_avsbg("quantize", linked, "--precision", "fp16")
    assert result.code == 0, result.output
    assert "clip.fp16" in Bundle.open(linked).manifest.graphs
    assert {name: sha256(other / name) for name in before} == before
    assert "clip.fp16" not in Bundle.open(other).manifest.graphs


def test_every_way_to_read_its_weights_works(smallest, linked):
    bundle = Bundle.open(linked)
    own, others = read_graph_weights(bundle), read_graph_weights(smallest.bundle)
    assert own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in own)
    path = bundle.file(bundle.graph().file)
    vectors = next(iter(bundle.vectors()))
    for load in (load_graph, load_folded):
        with temporary_session(load(path)) as session:
            (logits,) = session.run(vectors.inputs).values()
        np.testing.assert_allclose(logits, vectors.outputs["logits"], atol=1e-3)


def test_a_graph_that_keeps_its_weights_in_the_bundles_file_still_does(export_once, tmp_path):
    shared = export_once("avs-bg, waveform").bundle
    linked = Path(shutil.copytree(shared.path, tmp_path / "linked", copy_function=os.link))
    with update_bundle(Bundle.open(linked)) as update:
        name = add_graph(update, "clip", "tf32")
    record = Bundle.open(linked).graph(name)
    assert record.external_data == shared.graph("clip").external_data
    assert (linked / record.file).stat().st_size < 2**20, "the weights are in the graph"
