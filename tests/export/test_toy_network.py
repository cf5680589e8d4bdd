"""A network of forty lines goes through every verb, with what its record declares and no word of it elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avsbg.benchmarks.results.schema import read_rows
from avsbg.export.graphs import AudioForm, ClipGraph
from avsbg.export.shape import ExportError
from avsbg.model import NETWORKS, create_network, register_network
from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.streaming.stream import open_stream
from fixtures.cli import run_avsbg
from fixtures.toy_network import TOY
from fixtures.videos import steady, tone, write_video

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory):
    """The bundle of the network, which is registered meanwhile."""
    register_network(TOY)
    path = tmp_path_factory.mktemp("toy") / "toy"
    outcome = run_avsbg("export", "toy", "--seed", 1, "--frames", 3, "--size", "32x64", "--stream", "-o", path)
    assert outcome.code == 0, outcome.output
    yield Bundle.open(path)
    del NETWORKS["toy"]


def test_its_manifest_says_what_its_record_does(toy: Bundle) -> None:
    manifest = toy.manifest
    assert manifest.name == "toy-none"
    assert manifest.preprocessing.mean == (0.5, 0.5, 0.5)
    assert (manifest.clip.sample_rate, manifest.clip.shared_sound, manifest.mixes_frames) == (8000, True, None)
    shapes = {tensor.name: tensor.shape for tensor in toy.graph("clip").inputs}
    assert shapes == {"frames": ("clips", 3, 32, 64, 3), "waveform": ("clips", 24000)}
    assert {tensor.name: tensor.shape for tensor in toy.graph("encode").inputs}["waveform"] == ("streams", 24000)


def test_verify(toy: Bundle) -> None:
    for backend in ("onnxruntime", "torch"):
        outcome = run_avsbg("verify", toy.path, "--backend", backend)
        assert outcome.code == 0 and "all pass" in outcome.output, outcome.output
    vectors = next(toy.vectors())
    np.testing.assert_array_equal(vectors.outputs["probability"], vectors.outputs["logits"].clip(0, 1))
    with create("onnxruntime", toy) as backend:
        quiet = vectors.inputs | {"waveform": 0 * vectors.inputs["waveform"]}
        change = vectors.outputs["logits"] - backend.run(quiet, ["logits"])["logits"]
    loudness = np.abs(vectors.inputs["waveform"]).reshape(1, 30, 800).max(axis=2).mean()
    np.testing.assert_allclose(change, loudness, atol=1e-5)


def test_run_and_stream(toy: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mkv", times=steady(25, 125), sound=tone(5))
    for options in ((), ("--mode", "stream")):
        outcome = run_avsbg("run", toy.path, video, "-o", tmp_path / f"out{len(options)}", *options)
        assert outcome.code == 0, outcome.output
        assert json.loads((tmp_path / f"out{len(options)}/summary.json").read_text())["seconds"] == 5


def test_a_frame_of_a_stream_takes_the_sound_up_to_its_own_second(toy: Bundle) -> None:
    module = ClipGraph(create_network("toy"), AudioForm.WAVEFORM)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 32, 64, 3), dtype=np.uint8)
    sound = rng.uniform(-1, 1, 4 * 8000).astype(np.float32) * np.repeat([0.1, 0.9, 0.2, 0.5], 8000)
    sound = sound.astype(np.float32)
    masks = []
    with open_stream(toy, outputs=("logits",)) as stream:
        for frame, second in zip(frames, np.split(sound, 4), strict=True):
            new = stream.push(frame, second)
            assert [mask.partner for mask in new] == ["none"]  # at once: no mask waits for the next frame
            masks += new
        assert stream.close() == []
    padded = np.concatenate([np.zeros(16000, np.float32), sound])
    windows = np.stack([padded[start : start + 24000] for start in range(0, 32000, 8000)])
    with create("onnxruntime", toy) as backend:
        clips = np.repeat(frames[:, None], 3, axis=1)
        expected = backend.run({"frames": clips, "waveform": windows}, ["logits"])["logits"][:, 0]
    np.testing.assert_allclose(np.stack([mask.outputs["logits"] for mask in masks]), expected, atol=1e-5)
    assert module.spectrogram(torch.zeros(1, 24000)).shape == (1, 30, 1)


def test_bench(toy: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mkv", times=steady(25, 75), sound=tone(3))
    quick = ("--samples", 3, "--min-time", 0, "--warmup", 1, "--threads", 1, "--allow-unstable", "--no-memory")
    end_to_end = ("--scope", "end-to-end", "--video", video)
    outcome = run_avsbg("bench", "run", toy.path, *end_to_end, *quick, "-o", tmp_path / "rows")
    assert outcome.code == 0, outcome.output
    (row,) = read_rows(tmp_path / "rows" / "rows.jsonl")
    assert row["operations"].number == 3 * 2 * 32 * 64 * 27
    report = run_avsbg("bench", "report", tmp_path / "rows" / "rows.jsonl", "-o", tmp_path / "page")
    assert report.code == 0 and "Toy" in (tmp_path / "page/report.html").read_text()
    streamed = run_avsbg(
        "bench", "stream", toy.path, "--fps", "max", "--duration", 0.5, "--samples", 2, "--rows", tmp_path / "s"
    )
    assert streamed.code == 0, streamed.output


def test_forms_of_sound_that_it_does_not_have(toy: Bundle, tmp_path: Path) -> None:
    outcome = run_avsbg("export", "toy", "--seed", 1, "--audio", "embedding", "-o", tmp_path / "new")
    assert outcome.code == 1 and "Choose --audio from: waveform, spectrogram" in outcome.paragraph
    with pytest.raises(ExportError, match="avsbench takes no sound as spectrogram"):
        ClipGraph(create_network("avsbench", encoder="pvt_v2_b0"), AudioForm.SPECTROGRAM)
