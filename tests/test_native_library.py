"""Native libraries are found, and where one is missing the reason is the build's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import avsbg
from avsbg.native_library import NativeLibraryError, native_library


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """An installation of its own, like an editable one: sources in one folder, what was built in another."""
    monkeypatch.setattr(avsbg, "__path__", [str(tmp_path / "sources"), str(tmp_path / "built")])
    folder = tmp_path / "built" / "runtime" / "lib"

    def install(built: dict[str, dict[str, str]], skipped: dict[str, str]) -> Path:
        folder.mkdir(parents=True)
        (folder / "native.json").write_text(json.dumps({"built": built, "skipped": skipped}))
        return folder

    return install


def test_a_built_library_is_found_with_its_record(installation):
    folder = installation({"tensorrt": {"file": "libplugin.so", "cuda": "13.0", "architectures": "87 110"}}, {})
    (folder / "libplugin.so").touch()
    library = native_library("tensorrt")
    assert library.path == folder / "libplugin.so"
    assert library.built_with == {"cuda": "13.0", "architectures": "87 110"}


def test_a_skipped_library_tells_why(installation):
    installation({}, {"tensorrt": "No TensorRT headers: install TensorRT."})
    with pytest.raises(NativeLibraryError, match=r"tensorrt was not built.*No TensorRT headers: install TensorRT\."):
        native_library("tensorrt")


def test_a_library_that_was_removed_is_missed(installation):
    installation({"tensorrt": {"file": "libplugin.so"}}, {})
    with pytest.raises(NativeLibraryError, match=r"libplugin\.so was built but is no longer there\. Reinstall"):
        native_library("tensorrt")


def test_an_installation_without_libraries_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(avsbg, "__path__", [str(tmp_path)])
    with pytest.raises(NativeLibraryError, match="no native libraries"):
        native_library("tensorrt")


def test_a_library_that_an_older_build_did_not_know_asks_for_a_new_build(installation):
    installation({"tensorrt": {"file": "libplugin.so"}}, {})
    with pytest.raises(NativeLibraryError, match=r"cuda was not built.*make native"):
        native_library("cuda")


def test_an_unknown_name_lists_the_known_ones(installation):
    with pytest.raises(ValueError, match=r"'tensorflow'; there are: cuda, onnxruntime, tensorrt"):
        native_library("tensorflow")
