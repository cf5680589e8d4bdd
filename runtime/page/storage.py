"""The files of the page's clients: how much they may take together, and their end after some minutes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from avsbg.runtime.page.limits import Limits

# Bytes that a file or a folder takes at least, and seconds between two sweeps.
_BLOCK, _EVERY = 4096, 60.0


class Storage:
    """A folder of files with a limit on all of them.

    What is in it is counted when a file begins to come; what comes from then on is added, until it is counted again.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._most, self._age = folder, limits.total_megabytes * 2**20, 60.0 * limits.minutes
        self._held = 0

    async def has_room(self, size: int) -> bool:
        """Count what is held, and tell whether so many bytes more may come."""
        self._held = await asyncio.to_thread(self._measure)
        return self._held + size <= self._most

    def take(self, size: int) -> bool:
        """Count bytes that come, and tell whether they may; those that may not are not counted."""
        if self._held + size > self._most:
            return False
        self._held += size
        return True

    def _measure(self) -> int:
        total = 0
        for folder, folders, files in os.walk(self._folder):
            total += _BLOCK * len(folders)
            for file in files:
                with suppress(FileNotFoundError):  # removed meanwhile
                    total += max(_BLOCK, Path(folder, file).lstat().st_size)
        return total

    def sweep(self) -> None:
        """Remove the files that were last changed too many minutes ago, and folders that are empty for as long.

        gradio removes, as often, those that it knows: not what is left of an upload that was broken off.
        """
        before = time.time() - self._age
        for folder, _, files in os.walk(self._folder, topdown=False):
            for file in files:
                with suppress(FileNotFoundError):
                    if (path := Path(folder, file)).lstat().st_ctime < before:
                        path.unlink()
            with suppress(OSError):  # it is not empty, or no longer there
                if (path := Path(folder)) != self._folder and path.lstat().st_ctime < before:
                    path.rmdir()

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Sweep every minute while the block lasts."""
        ended = threading.Event()

        def sweep() -> None:
            while not ended.wait(_EVERY):
                self.sweep()

        thread = threading.Thread(target=sweep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
