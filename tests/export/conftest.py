"""Small exports that the tests share; each takes some ten seconds to make, so there is one per session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from avsbg.export.bundle_writer import export_bundle
from avsbg.export.graphs import AudioForm, ClipGraph
from avsbg.export.shape import ClipShape
from avsbg.export.weights import from_seed
from avsbg.model import named_variant
from avsbg.runtime.bundle import Bundle
from fixtures.cli import run_avsbg
from fixtures.shared import make_once


@dataclass(frozen=True)
class Exported:
    """A bundle and the module that it was made from."""

    bundle: Bundle
    module: ClipGraph


# For tests in which neither sound nor shape matters: without VGGish, whose weights are ten times the network's and are
# copied, hashed and converted wherever they are.
SMALL = "avs-bg, embedding"
# Between the others: the three audio forms, both networks, both operators, graphs with and without them, T of 2 and 3.
# Those of AVS-BG have the graphs of a stream too.
EXPORTS = {
    SMALL: ("avs-bg", {}, AudioForm.EMBEDDING, ClipShape(2, 64, 64)),
    "avs-bg, waveform": ("avs-bg", {}, AudioForm.WAVEFORM, ClipShape(3, 64, 96)),
    "avsbench, log-mel": ("avsbench", {}, AudioForm.LOG_MEL, ClipShape(2, 64, 64)),
    "avs-bg as published, embedding": ("avs-bg", {"form": "published"}, AudioForm.EMBEDDING, ClipShape(3, 64, 64)),
    "avs-bg without audio and motion": (
        "avs-bg-without-audio",
        {"motion": False},
        AudioForm.WAVEFORM,
        ClipShape(2, 32, 32),
    ),
}


@pytest.fixture(scope="session")
def export_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Makes an entry of `EXPORTS`, or returns it if it has been made; tests do not change it."""
    made: dict[str, Exported] = {}

    def make(key: str) -> Exported:
        if key not in made:
            name, switches, audio, shape = EXPORTS[key]
            seed = int(key != SMALL)  # tests of int8 know products of the small one
            module, weights = from_seed(named_variant(name, encoder="pvt_v2_b0", **switches), audio, seed=seed)

            def export(path: Path) -> None:
                export_bundle(module, path, weights=weights, shape=shape, stream=name != "avsbench")

            path = make_once(tmp_path_factory, key.replace(", ", "-").replace(" ", "-"), export)
            made[key] = Exported(Bundle.open(path), module)
        return made[key]

    return make


@pytest.fixture(scope="session", params=[key for key in EXPORTS if key != SMALL])
def exported(request: pytest.FixtureRequest, export_once: Callable[[str], Exported]) -> Exported:
    """Each of `EXPORTS` but the small one in turn."""
    return export_once(request.param)


@pytest.fixture(scope="session")
def smallest(export_once: Callable[[str], Exported]) -> Exported:
    """The export that is quickest to run, where one is enough."""
    return export_once("avs-bg without audio and motion")


@pytest.fixture(scope="session")
def small(export_once: Callable[[str], Exported]) -> Exported:
    """AVS-BG with the smallest encoder, two frames of 64 x 64, embeddings as sound, and its stream."""
    return export_once(SMALL)


@pytest.fixture(scope="session")
def quantized(small: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `small` in int8 too; tests do not change it."""

    def make(path: Path) -> None:
        shutil.copytree(small.bundle.path, path)
        text = _quantize(path, "int8")
        assert "the test vectors are synthetic" in text
        assert "not quantised, a product of two activations: " in text
        assert "groups left out (" in text and ", passes" in text

    return make_once(tmp_path_factory, "int8", make)


@pytest.fixture(scope="session")
def quantized_twice(quantized: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, in fp8 too."""

    def make(path: Path) -> None:
        shutil.copytree(quantized, path)
        _quantize(path, "fp8")

    return make_once(tmp_path_factory, "int8-fp8", make)


def _quantize(path: Path, precision: str) -> str:
    result = run_avsbg("quantize", path, "--precision", precision, "--calibrate", "vectors", "--min-miou", "0.5")
    assert result.code == 0, result.output
    return result.output


@pytest.fixture(scope="session", params=["igan", "lgvt"])
def salient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """iGAN and LGVT with two blocks in each stage of Swin-B in place of up to 18, and the graphs of a stream."""
    module, weights = from_seed(named_variant(request.param), AudioForm.EMBEDDING, seed=1)
    stages = module.network.encoder.network.layers
    stages[2].blocks = stages[2].blocks[:2]

    def export(path: Path) -> None:
        export_bundle(module, path, weights=weights, shape=ClipShape(2, 64, 96, min_frames=1), stream=True)

    return Exported(Bundle.open(make_once(tmp_path_factory, request.param, export)), module)
