"""Reproducible archives: the same bytes at any time, on any machine, for any user."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

from avsbg.errors import AvsbgError

# Of zstd: weights hardly shrink, and beyond this level the rest does not either.
_LEVEL = 9


def write_archive(file: Path, folder: str, members: Mapping[str, Path], executable: frozenset[str]) -> None:
    """Write a .tar.zst of `members`, the files by their names below `folder`.

    Nothing of the files but content passes: owner, time and order are fixed, and who may execute what is said by
    `executable`. The same version of zstandard makes the same bytes. An `AvsbgError` if zstandard is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise AvsbgError("the Python package zstandard is not installed.", "pip install 'avsbg[package]'") from error
    with (
        file.open("wb") as raw,
        zstandard.ZstdCompressor(level=_LEVEL).stream_writer(raw, closefd=False) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(members):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = members[name].stat().st_size
            entry.mode = 0o755 if name in executable else 0o644
            with members[name].open("rb") as content:
                archive.addfile(entry, content)
