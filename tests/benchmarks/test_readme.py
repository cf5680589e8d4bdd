"""The README's table comes from rows, and from stable rows of one run only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests_rows import make_row, make_second_row

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.readme import BEGIN, END, README, RESULTS, render, replace_block
from avsbg.benchmarks.rows import read_rows, write_rows

ROOT = Path(__file__).parents[2]


def test_measured_figures_stand_beside_the_papers() -> None:
    lines = render([make_row(), make_second_row()], "rows.jsonl").splitlines()
    assert lines[2] == (
        "| AVS-BG | PyTorch eager, as published | 85.50 / 82.00 | 188.6 | 1000.0 / 1010.0 | 1 | 1586 | 85.50 / 27.48 |"
    )
    assert lines[3].startswith("| AVS-BG | ONNX Runtime, native operator | ")
    assert "| 500.0 / 505.0 | 0.500 [0.990, 1.010] |" in lines[3]
    assert "Imaginary CPU, 2 threads" in lines[5] and "commit 0123456789ab." in lines[5]
    assert lines[-1].strip() == "avsbg bench avs-bg"


def test_what_is_no_result_is_not_published() -> None:
    with pytest.raises(BenchmarkError, match="unstable"):
        render([make_row(), make_second_row(problems=("too few samples",))], "rows.jsonl")
    elsewhere = make_row().run.model_copy(update={"others": 0.02})
    with pytest.raises(BenchmarkError, match="not of the run"):
        render([make_row(), make_second_row(run=elsewhere)], "rows.jsonl")
    without_motion = make_row().variant | {"motion": False}
    with pytest.raises(BenchmarkError, match="Table 7"):
        render([make_row(variant=without_motion)], "rows.jsonl")


def test_only_what_is_between_the_markers_changes() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_block(text, "new", "README.md") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    for broken in ("none", f"{END}\n{BEGIN}", f"{text}{text}"):
        with pytest.raises(BenchmarkError, match=r"README\.md needs the lines"):
            replace_block(broken, "new", "README.md")


def _run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "avsbg.benchmarks.readme", "--rows", "rows.jsonl", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [make_row(), make_second_row()])
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\n{END}\n")
    stale = _run(tmp_path, "--check")
    assert stale.returncode == 1 and "is not what rows.jsonl gives" in stale.stderr
    assert readme.read_text() == f"# Title\n\n{BEGIN}\n{END}\n"
    assert _run(tmp_path).returncode == 0
    assert "| AVS-BG | ONNX Runtime, native operator |" in readme.read_text()
    assert _run(tmp_path, "--check").returncode == 0


@pytest.mark.skipif(not (ROOT / RESULTS).is_file(), reason="no results of the full networks are committed yet")
def test_our_readme_shows_the_committed_rows() -> None:
    text = (ROOT / README).read_text(encoding="utf-8")
    assert replace_block(text, render(read_rows(ROOT / RESULTS), RESULTS.as_posix()), "README.md") == text
