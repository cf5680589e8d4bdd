"""Writing files and directories so that an interrupted run leaves no half-written output.

A leaf module: every part may import it, and it imports no other part.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Contents of a temporary folder: its lock, the new output, and the output that it replaces.
_LOCK, _NEW, _OLD = "lock", "new", "old"
_SUFFIX = ".partial"
# Bytes of a name that a folder beside it may repeat; file systems allow 255 in all.
_LONGEST = 200


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


def _prefix(path: Path) -> str:
    """The beginning of the names of the folders in which `path` is made."""
    name = os.fsencode(path.name)
    return f".{path.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()}."


def _lock(folder: Path) -> int | None:
    """Lock a temporary folder until the descriptor is closed, which the end of the process does however it ends.

    A file is locked and not the folder, since machines that share a network file system see only locks of files.
    Returns None where the file system has no locks; a FileNotFoundError or BlockingIOError if another process has
    removed the folder, or holds the lock.
    """
    file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            os.close(file)
            return None
        # Between opening and locking another process may have removed it.
        if not os.path.samestat(os.fstat(file), (folder / _LOCK).stat()):
            raise FileNotFoundError(folder)
    except (BlockingIOError, FileNotFoundError):
        os.close(file)
        raise
    return file


def remove_abandoned(path: Path) -> None:
    """Remove the temporary folders of processes that were killed while they made `path`.

    One that died between moving an old `path` away and putting the new one in its place has the old one put back.
    """
    name = re.compile(re.escape(_prefix(path)) + r"[a-z0-9_]{8}" + re.escape(_SUFFIX))
    with suppress(OSError), os.scandir(path.parent) as entries:
        folders = [Path(one.path) for one in entries if name.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
        for folder in folders:
            with suppress(OSError):  # in use, another user's, or gone
                lock = _lock(folder)
                if lock is None:
                    continue
                if (folder / _OLD).exists() and not path.exists():
                    (folder / _OLD).replace(path)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a private, locked folder beside `path`, so that every rename stays on one file system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=_SUFFIX, dir=path.parent))
        with suppress(BlockingIOError, FileNotFoundError):  # taken for abandoned before it was locked
            lock = _lock(folder)
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same name; on success it becomes `path`, on failure it is removed."""
    path = Path(path)
    remove_abandoned(path)
    with _temporary_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        _obey_umask(temporary, 0o666)  # some savers put a private file of their own in its place
        temporary.replace(path)


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary directory; on success it becomes `path`, on failure it is removed.

    Args:
        path: the directory to create.
        replace: whether an existing `path` is replaced (only once the new one is complete).

    Raises:
        FileExistsError: `path` exists and `replace` is false.
    """
    path = Path(path)
    remove_abandoned(path)
    if path.exists() and not replace:
        raise FileExistsError(path)
    with _temporary_folder(path) as folder:
        fresh, retired = folder / _NEW, folder / _OLD
        fresh.mkdir()
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
