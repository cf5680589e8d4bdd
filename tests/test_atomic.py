"""Output appears complete or not at all, and nothing is left behind."""

from __future__ import annotations

import pytest

from avsbg.atomic import atomic_directory, atomic_file


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
