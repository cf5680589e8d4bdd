"""The way a frame is displayed: its display matrix, as a transposition and two flips."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a rectangle on its own axes: transposed first, then flipped."""

    transposed: bool = False
    flipped_x: bool = False  # left and right exchanged
    flipped_y: bool = False  # top and bottom exchanged

    @property
    def is_upright(self) -> bool:
        """Whether frames are displayed as they are stored."""
        return self == UPRIGHT

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """A view of pixels `[height, width, ...]` the way they are displayed."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The displayed width and height of a stored frame."""
        return (height, width) if self.transposed else (width, height)


UPRIGHT = Orientation()


def orientation_of(frame: Any, default: Orientation = UPRIGHT) -> Orientation:
    """The orientation in a decoded frame's display matrix; `default` if it carries none.

    A matrix of another angle than a quarter turn is taken for the nearest one.
    """
    matrix = next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    return default if matrix is None else _parse_matrix(matrix)


def _parse_matrix(content: bytes) -> Orientation:
    """Read nine int32 `a b u c d v x y w`: a stored pixel (p, q) is displayed at (a p + c q + x, b p + d q + y)."""
    a, b, _, c, d, *_ = np.array(struct.unpack("=9i", content[:36]), np.int64).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)
