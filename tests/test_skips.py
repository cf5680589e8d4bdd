"""The guard of skipped tests: a skip that the committed list does not allow fails a CI run, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import skips

ROOT = Path(__file__).parents[1]


def test_the_list_gives_a_why_for_each_reason(tmp_path: Path) -> None:
    assert len(skips.allowed_reasons()) >= 3
    (tmp_path / "list").write_text("# a comment\nno reason is given |\n")
    with pytest.raises(ValueError, match="no reason is given"):
        skips.allowed_reasons(tmp_path / "list")


@pytest.mark.parametrize(
    ("ci", "reason", "status"),
    [("true", "made up", 1), ("false", "made up", 0), ("true", "this CPU has no bf16 instructions", 0)],
)
def test_a_skip_that_is_not_listed_fails_a_ci_run(tmp_path: Path, ci: str, reason: str, status: int) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_skipped():\n    pytest.skip({reason!r})\ndef test_passed():\n    pass\n"
    )
    environment = {**os.environ, "CI": ci, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert (f"test_it.py::test_skipped: Skipped: {reason}" in done.stdout) == ("made up" in reason)
