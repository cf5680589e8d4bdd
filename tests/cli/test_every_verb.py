"""Every verb of `avsbg` once, on the smallest input that it takes: the newcomer's loop (`make test-fast`)."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from avsbg import __version__
from avsbg.cli import app, load_verbs
from avsbg.cli.aliases import BENCH, OPTIONS, VERBS, rename
from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from fixtures.avsbench import write_dataset
from fixtures.cli import run_avsbg
from fixtures.stream_bundle import make_stream_bundle
from fixtures.videos import steady, tone, write_video

load_verbs()
# In this order: some use what an earlier one made. `tiny` and `streaming` are bundles of tests/fixtures.
COMMANDS = """
doctor
data check data --task s4
train s4/avs-bg-without-bg --data data -o out/run --encoder pvt_v2_b0 --encoder-weights random \
    --audio-encoder compact --epochs 1 --batch 2 --loader-workers 0 --device cpu
eval out/run --data data --task s4
export out/run --audio waveform --size 32 --frames 2 -o out/bundle
inspect out/bundle
verify out/bundle --json out/verify.json
quantize tiny --precision fp16
build tiny --backend tensorrt-rtx --precision fp16 --implementation plain --compute-capability 86 \
    --allow-precision-fallback
run tiny video.mkv -o out/masks --threads 1
serve triton tiny -o out/models
visualize out/bundle video.mkv -o out/maps
bench run tiny --scope end-to-end --video video.mkv --samples 2 --min-time 0 --warmup 1 --threads 1 --no-memory \
    --allow-unstable -o out/bench
bench compare out/bench out/bench --json out/verdicts.json
bench report out/bench -o out/report
bench stream streaming --fps max --duration 0.2 --samples 2 --threads 1 --rows out/stream.jsonl
"""
# They need packages that are not here: tests of theirs run them in an environment of their own.
ELSEWHERE = {
    "package": "tests/export/package/test_package.py",
    "batch": "tests/runtime/cluster/test_batch.py",
    "demo-page": "tests/runtime/page/test_page.py",
}


def _lines() -> list[str]:
    return COMMANDS.strip().splitlines()


def _verbs(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    for verb, one in command.commands.items():
        full = f"{name} {verb}".strip()
        yield from _verbs(one, full) if hasattr(one, "commands") else [(full, one)]


def _has_command(file: Path, verb: str) -> bool:
    """Whether a list or a call in a file of tests has the verb among its words."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.List | ast.Call)]
    words = [word for node in nodes for word in (node.elts if isinstance(node, ast.List) else node.args)]
    return any(isinstance(word, ast.Constant) and word.value == verb for word in words)


def test_the_list_is_complete() -> None:
    verbs = {name for name, _ in _verbs(typer.main.get_command(app)) if not name.startswith("data ")}
    lines = {line.replace("data check", "data") for line in _lines()}
    verbs -= set(ELSEWHERE)
    assert all(_has_command(ROOT / path, verb) for verb, path in ELSEWHERE.items())
    assert {
        next(verb for verb in (*verbs, "data") if line.startswith(f"{verb} ") or line == verb) for line in lines
    } == {
        *verbs,
        "data",
    }


def test_help_fits_80_columns() -> None:
    """No line is longer, no option or choice cut off, no Python type, no sentence broken before the end of a line."""
    for verb, command in _verbs(typer.main.get_command(app)):
        text = run_avsbg(*verb.split(), "--help", columns=80).out
        assert max(map(len, text.splitlines())) <= 80
        description = [line.strip() for line in text.split("╭")[0].splitlines()]
        broken = [
            line for line, after in pairwise(description) if line and after and len(f"{line} {after.split()[0]}") < 78
        ]
        assert not broken, f"avsbg {verb} --help breaks a line early"
        assert not re.search(r"<(str|path|int|float|list)|[{][a-z]", text), (
            f"avsbg {verb} --help shows a type of Python"
        )
        cut = [choices for choices in re.findall(r"<[a-z]\S+", text) if not choices.endswith(">")]
        assert not cut, f"avsbg {verb} --help breaks {cut}"
        for option in (option for parameter in command.params if not parameter.hidden for option in parameter.opts):
            assert option in text or not option.startswith("-"), f"avsbg {verb} --help cuts {option} off"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("convert b --precision fp16 --gate=0.9", "quantize b --precision fp16 --min-miou=0.9"),
        ("bench a b --clips 2", "bench run a b --batch 2"),
        ("bench run a", "bench run a"),
        ("bench", "bench"),
        ("bench --help", "bench --help"),
        ("bench-stream s -o rows.jsonl --force", "bench stream s --rows rows.jsonl --overwrite"),
        ("bench a --seconds 0 --patience 4", "bench run a --min-time 0 --extra-rounds 4"),
        ("bench stream s --rate=10 --seconds 2", "bench stream s --fps=10 --duration 2"),
        ("compare a b --json c", "bench compare a b --json c"),
        ("report r --accuracy f -o out", "bench report r --scores f -o out"),
        ("run b v --stream --silent -o out", "run b v --mode stream --no-sound -o out"),
        ("run b --overlay -- --clips", "run b -- --clips"),
        ("data sounding-stamps d --clips 1 1 6", "data sounding-stamps d --split-sizes 1 1 6"),
        ("doctor --json", "doctor --format json"),
        ("export avs-bg --stream", "export avs-bg --stream"),
    ],
)
def test_old_names_are_read_as_the_new_ones(old: str, new: str) -> None:
    assert rename(old.split())[0] == new.split()


def test_every_new_name_exists() -> None:
    verbs = dict(_verbs(typer.main.get_command(app)))
    assert {*VERBS.values(), *(f"bench {verb}" for verb in BENCH)} <= verbs.keys()
    for verb, renamed in OPTIONS.items():
        options = {option for parameter in verbs[verb].params for option in parameter.opts}
        assert {new.split()[0] for new in renamed.values() if new} <= options, verb
        assert not [old for old in renamed if old in options], verb


def test_an_old_name_says_the_new_one_on_stderr(tmp_path: Path) -> None:
    result = run_avsbg("doctor", "--json")
    assert result.code == 0 and json.loads(result.out)["findings"]
    assert result.err == "note: --json is now --format json; the old name goes with the next version\n"


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
    names = "bundle verify.json masks models maps bench verdicts.json report stream.jsonl run"
    assert made == set(names.split())
    assert Bundle.open(Path("tiny")).manifest.engines


def test_the_version_is_one() -> None:
    assert run_avsbg("--version").out == f"avsbg {__version__}\n"
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"({__version__})" in (ROOT / "CHANGELOG.md").read_text()
