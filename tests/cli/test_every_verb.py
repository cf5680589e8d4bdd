"""Every verb of `avsbg` once, on the smallest input that it takes: the newcomer's loop (`make test-fast`)."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import pytest
import typer

from avsbg.cli import app
from avsbg.runtime.bundle import Bundle
from fixtures.avsbench import write_dataset
from fixtures.cli import run_avsbg
from fixtures.videos import steady, tone, write_video

# In this order: some use what an earlier one made. `tiny` is the bundle of tests/fixtures/tiny_bundle.py.
COMMANDS = """
doctor
export avs-bg --encoder pvt_v2_b0 --seed 1 --size 32 --frames 2 --stream -o out/bundle
inspect out/bundle
verify out/bundle --json out/verify.json
convert tiny --precision fp16
build tiny --backend tensorrt-rtx --precision fp16 --operator plain --compute-capability 86
run tiny video.mkv -o out/masks --threads 1
visualize out/bundle video.mkv -o out/maps
bench tiny --scope end-to-end --video video.mkv --samples 2 --seconds 0 --warmup 1 --threads 1 --no-memory \
    --allow-unstable -o out/bench
compare out/bench out/bench --json out/verdicts.json
report out/bench -o out/report
bench-stream out/bundle --rate max --seconds 0.2 --samples 2 --threads 1 -o out/stream.jsonl
data check data --task s4
train s4/avs-bg-without-bg --data data -o out/run --encoder pvt_v2_b0 --encoder-weights random \
    --audio-encoder compact --epochs 1 --batch 2 --workers 0 --device cpu
eval out/run --data data --task s4
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
    write_video(tmp_path / "video.mkv", times=steady(5, 25), rate=5, sound=tone(5))
    write_dataset(tmp_path / "data", "s4", counts={"train": 2, "val": 1, "test": 1})
    for line in _lines():
        begin = time.time()
        b = time.process_time()
        result = run_avsbg(*shlex.split(line))
        print(round(time.time() - begin, 1), round(time.process_time() - b, 1), line)
        assert result.code == 0, f"avsbg {line}\n{result.output}"
    made = {path.name for path in Path("out").iterdir()}
    assert made == {"bundle", "verify.json", "masks", "maps", "bench", "verdicts.json", "report", "stream.jsonl", "run"}
    assert Bundle.open(Path("tiny")).manifest.engines
