"""Output appears complete or not at all, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from avsbg.atomic import _lock, atomic_directory, atomic_file, remove_abandoned


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "a.json"
    with atomic_file(target) as temporary:
        temporary.write_text("{}")
        assert temporary.suffix == ".json"
        assert not target.exists()
    assert target.read_text() == "{}"
    assert _names(target.parent) == ["a.json"]


def test_a_file_that_its_saver_replaced_can_be_read_by_others(tmp_path):
    with atomic_file(tmp_path / "a") as temporary:
        (tmp_path / "private").touch(mode=0o600)
        (tmp_path / "private").replace(temporary)
    assert (tmp_path / "a").stat().st_mode & 0o077


def test_a_failed_file_leaves_the_old_one(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_a_directory_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "bundle"
    with atomic_directory(target) as temporary:
        (temporary / "a").write_text("1")
        assert not target.exists()
    assert _names(tmp_path) == ["bundle"]
    assert target.stat().st_mode & 0o077, "others may not read it: the temporary directory's mode was kept"


def test_a_directory_is_replaced_only_on_request_and_only_when_complete(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileExistsError), atomic_directory(target):
        pass
    with pytest.raises(RuntimeError), atomic_directory(target, replace=True) as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert _names(target) == ["old"]
    with atomic_directory(target, replace=True) as temporary:
        (temporary / "new").touch()
    assert _names(target) == ["new"]
    assert _names(tmp_path) == ["bundle"]


def _killed(script: str) -> None:
    """Run a program that ends as `kill -9` ends it, where it says so."""
    result = subprocess.run([sys.executable, "-c", f"import os\nfrom pathlib import Path\n{script}"], check=False)
    assert result.returncode == -signal.SIGKILL


KILL = "os.kill(os.getpid(), 9)"


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    for made in ("run", "a" * 250, "list.json"):
        writer = "atomic_file" if made.endswith(".json") else "atomic_directory"
        _killed(f"from avsbg.atomic import *\nwith {writer}(Path({str(tmp_path / made)!r})):\n    {KILL}")
    assert len(_names(tmp_path)) == 3 and all(name.endswith(".partial") for name in _names(tmp_path))
    with atomic_file(tmp_path / "list.json") as temporary:
        temporary.write_text("[]")
    assert len(_names(tmp_path)) == 3, "only those of the same output are removed"
    for made in ("run", "a" * 250):
        with atomic_directory(tmp_path / made):
            pass
    assert _names(tmp_path) == ["a" * 250, "list.json", "run"]


def test_what_is_still_being_made_is_left_alone(tmp_path):
    target = tmp_path / "run"
    with atomic_directory(target) as first:
        (first / "a").touch()
        with atomic_directory(target) as second:
            assert (first / "a").exists()
            (second / "b").touch()
        remove_abandoned(target)
        assert (first / "a").exists() and _names(target) == ["b"]
    assert _names(target) == ["a"] and _names(tmp_path) == ["run"]


def test_what_only_looks_like_a_temporary_folder_is_left_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".run.abcd1234.partial").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".run.backup.partial").mkdir()
    (tmp_path / ".run.abcdefgh").mkdir()
    before = _names(tmp_path)
    remove_abandoned(tmp_path / "run")
    assert _names(tmp_path) == before and not list((tmp_path / "elsewhere").iterdir())


def test_an_old_directory_that_was_moved_away_is_put_back(tmp_path):
    target = tmp_path / "run"
    (target / "old").mkdir(parents=True)
    _killed(
        "from avsbg import atomic\natomic._exchange = lambda *_: False\n"
        "replace = Path.replace\n"
        f"Path.replace = lambda path, other: {KILL} if path.name == 'new' else replace(path, other)\n"
        f"with atomic.atomic_directory(Path({str(target)!r}), replace=True):\n    pass"
    )
    assert not target.exists()
    with pytest.raises(FileExistsError), atomic_directory(target):
        pass
    assert _names(target) == ["old"] and _names(tmp_path) == ["run"]


def test_a_folder_that_was_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    made, seen = tempfile.mkdtemp, []

    def make(**options):
        folder = Path(made(**options))
        if not seen:
            folder.rmdir()
        elif len(seen) == 1:
            seen.append(_lock(folder))
        seen.append(folder)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    with atomic_directory(tmp_path / "run") as temporary:
        assert temporary.parent == seen[-1]
    assert len(seen) == 4 and (tmp_path / "run").is_dir()
    os.close(seen[1])


def test_many_processes_make_one_file_and_leave_nothing(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom avsbg.atomic import atomic_file\n"
        "for _ in range(50):\n    with atomic_file(Path(sys.argv[1])) as one:\n        one.write_text(sys.argv[2])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.txt")]
    processes = [subprocess.Popen([*command, str(number)]) for number in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert _names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() in "0123"
