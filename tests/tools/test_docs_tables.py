"""README and docs show what the committed rows give, and a page that does not is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from fixtures import ROOT
from tools import docs_tables
from tools.docs_tables import BLOCKS, STATED, Block, find_handwritten, make_block, replace_block, update_page

PAGE = "<!-- table:sum -->\n<!-- /table:sum -->\n\nIt took <!-- table:one -->?<!-- /table:one --> so far.\n"


def _total(path: Path) -> str:
    return f"| {sum(map(int, path.read_text().split()))} ms |"


def _first(path: Path) -> str:
    return f"{path.read_text().split()[0]} ms"


OWN = (
    Block("README.md", "sum", _total, ("rows.txt",)),
    Block("README.md", "one", _first, ("rows.txt",)),
)


@pytest.mark.parametrize("page", docs_tables.pages(ROOT))
def test_our_pages_show_the_committed_rows(page: str) -> None:
    text, wanted = update_page(page, ROOT)
    assert text == wanted, f"run {docs_tables.COMMAND}"
    assert find_handwritten(text, STATED.get(page, ())) == []


def test_what_is_stated_stands_on_its_page() -> None:
    for page, words in STATED.items():
        for phrase, reason in words.items():
            assert reason
            assert phrase in (ROOT / page).read_text(encoding="utf-8"), f"STATED has {phrase!r}, which {page} lacks"


def test_every_committed_result_that_is_shown_exists() -> None:
    assert {block.page for block in BLOCKS} <= set(docs_tables.pages(ROOT))
    assert all(make_block(block, ROOT) for block in BLOCKS)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "rows.txt").write_text("1\n2\n")
    return tmp_path


def test_a_block_stands_on_its_lines_or_within_one(checkout: Path) -> None:
    before, after = update_page("README.md", checkout, OWN)
    assert before == PAGE
    assert "<!-- table:sum -->\n| 3 ms |\n<!-- /table:sum -->\n" in after
    assert "It took <!-- table:one -->1 ms<!-- /table:one --> so far." in after
    (checkout / "README.md").write_text(after)
    assert update_page("README.md", checkout, OWN) == (after, after)
    (checkout / "benchmarks" / "results" / "rows.txt").write_text("1\n3\n")
    assert "| 4 ms |" in update_page("README.md", checkout, OWN)[1]


def test_markers_must_be_there_and_known(checkout: Path) -> None:
    with pytest.raises(BenchmarkError, match="table:one that nothing makes"):
        update_page("README.md", checkout, OWN[:1])
    for broken in ("none", "<!-- /table:x -->\n<!-- table:x -->", "<!-- table:x --><!-- /table:x -->" * 2):
        with pytest.raises(BenchmarkError, match=r"README\.md needs the markers"):
            replace_block(broken, "x", "new", "README.md")
    (checkout / "benchmarks" / "results" / "rows.txt").unlink()
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
            "<!-- table:a -->",
            "14 ms in a block",
            "<!-- /table:a -->",
            "    15 ms, indented",
            "it scored mIoU 0.73",  # found
        ]
    )
    found = find_handwritten(text, ("a limit of 50 ms".capitalize(),))
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
    assert find_handwritten(line) == [f"line 1: {line}"]
    assert find_handwritten(line, (line,)) == []


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
    assert find_handwritten(line) == []


def test_the_command_checks_without_writing(tmp_path: Path) -> None:
    """In a copy of the checkout's pages with one digit changed."""
    for page in docs_tables.pages(ROOT):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    readme = tmp_path / "README.md"
    right = readme.read_text(encoding="utf-8")
    peak = json.loads((ROOT / "benchmarks/results/table7.jsonl").read_text().splitlines()[0])["metrics"]["peak_memory"][
        "value"
    ]
    wrong = right.replace(f"{peak / 2**20:.0f}", "9")
    readme.write_text(wrong, encoding="utf-8")

    command = [sys.executable, "-m", "tools.docs_tables", "--root", str(tmp_path), "--page", "README.md", "--check"]
    stale = subprocess.run(command, capture_output=True, text=True, check=False)
    assert stale.returncode == 1 and "README.md is not what its rows give" in stale.stderr
    assert readme.read_text(encoding="utf-8") == wrong
    docs_tables.update_pages(tmp_path, check=False, only=["README.md"])
    assert readme.read_text(encoding="utf-8") == right
    docs_tables.update_pages(tmp_path, check=True, only=["README.md"])
