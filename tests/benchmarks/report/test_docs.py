"""README and docs show what the committed rows give, and a page that does not is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report import docs as figures
from avsbg.benchmarks.report.docs import BLOCKS, STATED, Block, figures_by_hand, render, replace_block, update_page
from fixtures import ROOT

PAGE = "<!-- figures:sum -->\n<!-- /figures:sum -->\n\nIt took <!-- figures:one -->?<!-- /figures:one --> so far.\n"
OWN = (
    Block("README.md", "sum", "test_figures_functions:total", ("rows.jsonl",)),
    Block("README.md", "one", "test_figures_functions:first", ("rows.jsonl",)),
)


@pytest.mark.parametrize("page", figures.pages(ROOT))
def test_our_pages_show_the_committed_rows(page: str) -> None:
    text, wanted = update_page(page, ROOT)
    assert text == wanted, f"run {figures.COMMAND}"
    if all(block.name for block in BLOCKS if block.page == page):
        assert figures_by_hand(text, STATED.get(page, ())) == []


def test_what_is_stated_stands_on_its_page() -> None:
    for page, words in STATED.items():
        for phrase, reason in words.items():
            assert reason
            assert phrase in (ROOT / page).read_text(encoding="utf-8"), f"STATED has {phrase!r}, which {page} lacks"


def test_every_committed_result_that_is_shown_exists() -> None:
    assert {block.page for block in BLOCKS} <= set(figures.pages(ROOT))
    assert all(render(block, ROOT) for block in BLOCKS)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "rows.jsonl").write_text("1\n2\n")
    (tmp_path / "test_figures_functions.py").write_text(
        "def total(path):\n    return f'| {sum(map(int, path.read_text().split()))} ms |'\n"
        "def first(path):\n    return path.read_text().split()[0] + ' ms'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_block_stands_on_its_lines_or_within_one(checkout: Path) -> None:
    before, after = update_page("README.md", checkout, OWN)
    assert before == PAGE
    assert "<!-- figures:sum -->\n| 3 ms |\n<!-- /figures:sum -->\n" in after
    assert "It took <!-- figures:one -->1 ms<!-- /figures:one --> so far." in after
    (checkout / "README.md").write_text(after)
    assert update_page("README.md", checkout, OWN) == (after, after)
    (checkout / "benchmarks" / "results" / "rows.jsonl").write_text("1\n3\n")
    assert "| 4 ms |" in update_page("README.md", checkout, OWN)[1]


def test_markers_must_be_there_and_known(checkout: Path) -> None:
    with pytest.raises(BenchmarkError, match="figures:one that nothing makes"):
        update_page("README.md", checkout, OWN[:1])
    for broken in ("none", "<!-- /figures:x -->\n<!-- figures:x -->", "<!-- figures:x --><!-- /figures:x -->" * 2):
        with pytest.raises(BenchmarkError, match=r"README\.md needs the markers"):
            replace_block(broken, "x", "new", "README.md")
    (checkout / "benchmarks" / "results" / "rows.jsonl").unlink()
    with pytest.raises(BenchmarkError, match="which is not there"):
        update_page("README.md", checkout, OWN)


def test_figures_by_hand_are_found_and_stated_or_made_ones_are_not() -> None:
    text = "\n".join(
        [
            "A clip takes 253 ms.",  # found
            "A limit of 50 ms, at 16 kHz and 224 x 224.",
            "`12 ms` in code, and",
            "```",
            "13 ms in a fence",
            "```",
            "<!-- figures:a -->",
            "14 ms in a block",
            "<!-- /figures:a -->",
            "    15 ms, indented",
            "it scored mIoU 0.73",  # found
        ]
    )
    found = figures_by_hand(text, ("a limit of 50 ms".capitalize(),))
    assert found == ["line 1: A clip takes 253 ms.", "line 11: it scored mIoU 0.73"]


@pytest.mark.parametrize(
    "line",
    [
        "It is 1.4x as fast.",
        "Only 24 % of it",
        "24% of it",
        "30 percent",
        "1.4 times as fast",
        "three times faster",
        "twice as slow",
        "costs a quarter of a clip",
        "two thirds are left",
        "half the time",
        "5\u00d7 the rate",
    ],
)
def test_percentages_and_ratios_are_figures(line: str) -> None:
    assert figures_by_hand(line) == [f"line 1: {line}"]
    assert figures_by_hand(line, (line,)) == []


@pytest.mark.parametrize(
    "line",
    [
        "Maps of 4 x 4 and a kernel of 7x7.",
        "fp32 x 2",
        "the last quarter of the samples",
        "a map of half size",
        "called three times in turn",
        "`24 %` in code",
        "an x86 processor, x4.trans",
    ],
)
def test_shapes_and_counts_are_no_figures(line: str) -> None:
    assert figures_by_hand(line) == []


def test_the_command_checks_without_writing(tmp_path: Path) -> None:
    """In a copy of the checkout's pages with one digit changed."""
    for page in figures.pages(ROOT):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    readme = tmp_path / "README.md"
    right = readme.read_text(encoding="utf-8")
    peak = json.loads((ROOT / "benchmarks/results/table7.jsonl").read_text().splitlines()[0])["memory"]["peak"]
    wrong = right.replace(f"{peak / 2**20:.0f}", "9")
    readme.write_text(wrong, encoding="utf-8")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "avsbg.benchmarks.report.docs", "--root", str(tmp_path), "--page", "README.md"]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=False)

    stale = run("--check")
    assert stale.returncode == 1 and "README.md is not what its rows give" in stale.stderr
    assert readme.read_text(encoding="utf-8") == wrong
    assert run().returncode == 0 and readme.read_text(encoding="utf-8") == right
    assert run("--check").returncode == 0
