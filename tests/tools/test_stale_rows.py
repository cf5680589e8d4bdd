"""Rows that are older than what they depend on are listed; so are those of commits that nobody has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import KINDS, write_rows
from fixtures import ROOT
from fixtures.rows import ENVIRONMENT, make_row
from tools.stale_rows import SOURCES, find_ages, main, sources_of


def _git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    ran = subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def _commit(root: Path, file: str) -> str:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.read_text() + "x" if path.exists() else "x")
    _git(root, "add", "-A")
    _git(root, "commit", "-qm", file)
    return _git(root, "rev-parse", "HEAD")


def test_every_kind_says_what_it_depends_on_and_that_exists() -> None:
    assert SOURCES.keys() == KINDS.keys()
    missing = {path for paths in SOURCES.values() for path in paths if not (ROOT / path).exists()}
    assert not missing
    assert "model/avs_bg.py" in sources_of(make_row()) and (ROOT / "model/avs_bg.py").is_file()


def test_rows_are_as_old_as_the_last_change_of_their_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _git(tmp_path, "init", "-q")
    first = _commit(tmp_path, "model/avs_bg.py")

    def row(commit: str | None):
        return make_row(environment=ENVIRONMENT.model_copy(update={"commit": commit}))

    results = tmp_path / "benchmarks/results"
    results.mkdir(parents=True)
    write_rows(results / "a.jsonl", [row(first), row(first)])
    _commit(tmp_path, "docs/page.md")
    (age,) = find_ages(tmp_path, [results / "a.jsonl"])
    assert (age.state, age.rows) == ("current", 2)  # a page is no source
    changed = _commit(tmp_path, "model/avs_bg.py")
    write_rows(results / "b.jsonl", [row(changed), row(first), row("f" * 40), row(None)])
    states = {age.commit: age.state for age in find_ages(tmp_path, [results / "b.jsonl"])}
    assert states[changed[:12]] == "current"
    assert states[first[:12]].startswith(f"1 commits since, the last {changed[:7]}")
    assert states["f" * 12] == "its commit is not in the history" and states["unknown"] == "names no commit"
    with pytest.raises(BenchmarkError, match=r"b.jsonl \(ffffffffffff\)"):
        main(tmp_path, strict=True)
    main(tmp_path)
    shown = capsys.readouterr().out
    assert "| b.jsonl | latency | avs-bg | 1 | ffffffffffff | its commit is not in the history |" in shown
    assert "1 of 6 rows are as new as what they depend on" in shown
    with pytest.raises(BenchmarkError, match="no history"):
        find_ages(tmp_path / "nowhere", [])
