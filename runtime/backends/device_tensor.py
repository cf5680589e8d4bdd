"""Arrays that stay where a backend computed them, so that another graph takes them without a copy to the host."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.errors import BackendError


class DeviceTensor(ABC):
    """An output that its backend kept (`Backend.run(..., keep=...)`).

    It may be an input of another backend of the same class on the same device. `release` gives its buffer back, and
    later runs write to buffers that were given back before they take new ones: whoever holds at most two at a time
    makes two alternate.

    Attributes:
        dtype: the element type.
        shape: the shape.
        released: whether its buffer was given back; such an array can no longer be read or passed on.
    """

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = shape
        self.released = False
        self._lock = threading.Lock()

    def numpy(self) -> NDArray[Any]:
        """A copy on the host.

        Raises:
            BackendError: it was released.
        """
        self._check()
        return self._copy()

    def release(self) -> None:
        """Give the buffer back; releasing twice does nothing."""
        with self._lock:
            released, self.released = self.released, True
        if not released:
            self._give_back()

    def _check(self) -> None:
        """Check that it may be used.

        Raises:
            BackendError: it was released.
        """
        if self.released:
            raise BackendError("a kept array was used after its release.")

    @abstractmethod
    def _copy(self) -> NDArray[Any]:
        """A copy on the host; it has not been released."""

    @abstractmethod
    def _give_back(self) -> None:
        """Give the buffer back, or forget it; called once."""
