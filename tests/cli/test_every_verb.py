"""Every verb of `avsbg` once, on the smallest input that it takes: the newcomer's loop (`make test-fast`)."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from avsbg import __version__
from avsbg.cli import app
from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from fixtures.avsbench import write_dataset
from fixtures.cli import run_avsbg
from fixtures.stream_bundle import make_stream_bundle
from fixtures.videos import steady, tone, write_video

# In this order: some use what an earlier one made. `tiny` and `streaming` are bundles of tests/fixtures.
COMMANDS = """
doctor
data check data --task s4
train s4/avs-bg-without-bg --data data -o out/run --encoder pvt_v2_b0 --encoder-weights random \
    --audio-encoder compact --epochs 1 --batch 2 --workers 0 --device cpu
eval out/run --data data --task s4
export out/run --audio waveform --size 32 --frames 2 -o out/bundle
inspect out/bundle
verify out/bundle --json out/verify.json
convert tiny --precision fp16
build tiny --backend tensorrt-rtx --precision fp16 --operator plain --compute-capability 86 \
    --allow-precision-fallback
run tiny video.mkv -o out/masks --threads 1
visualize out/bundle video.mkv -o out/maps
bench tiny --scope end-to-end --video video.mkv --samples 2 --seconds 0 --warmup 1 --threads 1 --no-memory \
    --allow-unstable -o out/bench
compare out/bench out/bench --json out/verdicts.json
report out/bench -o out/report
bench-stream streaming --rate max --seconds 0.2 --samples 2 --threads 1 -o out/stream.jsonl
"""


def _lines() -> list[str]:
    return COMMANDS.strip().splitlines()


def test_the_list_is_complete() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert sorted(line.split()[0] for line in _lines()) == sorted(verbs)


def test_every_verb(bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    bundle_copy.rename("tiny")
    make_stream_bundle(tmp_path / "streaming")
    write_video(tmp_path / "video.mkv", times=steady(5, 25), rate=5, sound=tone(5))
    write_dataset(tmp_path / "data", "s4", counts={"train": 2, "val": 1, "test": 1})
    for line in _lines():
        result = run_avsbg(*shlex.split(line))
        assert result.code == 0, f"avsbg {line}\n{result.output}"
    made = {path.name for path in Path("out").iterdir()}
    assert made == {"bundle", "verify.json", "masks", "maps", "bench", "verdicts.json", "report", "stream.jsonl", "run"}
    assert Bundle.open(Path("tiny")).manifest.engines


def test_the_version_is_one() -> None:
    assert run_avsbg("--version").out == f"avsbg {__version__}\n"
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"({__version__})" in (ROOT / "CHANGELOG.md").read_text()
