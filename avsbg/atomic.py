"""Writing files and directories so that an interrupted run leaves no half-written output.

A leaf module: every part may import it, it imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _obey_umask(path: Path, mode: int) -> None:
    """`tempfile` makes its results private; what is published has the permissions that the user's umask leaves."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories change places in one step, so that neither is ever missing; false where that is not known.

    Linux's renameat2 does it on the usual file systems; Python does not offer it.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(exchange)) == 0


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success rename it to `path`, on failure remove it.

    The suffix is kept, since encoders and savers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _obey_umask(temporary, 0o666)  # last, since some savers put a private file of their own in its place
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary directory beside `path`; on success rename it to `path`, on failure remove it.

    Args:
        path: the directory to create.
        replace: whether an existing `path` is replaced (only once the new one is complete).

    Raises:
        FileExistsError: `path` exists and `replace` is false.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Both directories live in one private folder beside `path`, so that every rename stays on one file system.
    workshop = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    fresh, retired = workshop / "new", workshop / "old"
    fresh.mkdir()
    try:
        _obey_umask(fresh, 0o777)
        yield fresh
        if path.exists() and _exchange(fresh, path):
            return
        if path.exists():
            path.replace(retired)
        try:
            fresh.replace(path)
        except OSError:
            if retired.exists():
                retired.replace(path)
            raise
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
