"""How large a tensor may be that a file describes: checked before anything is allocated for it."""

from __future__ import annotations

import math
from collections.abc import Iterable

# TensorRT counts a tensor's elements in 32 bits, and no clip comes near it.
MAX_ELEMENTS = 2**31 - 1


def validate_shape(shape: Iterable[int | str], most: int = MAX_ELEMENTS) -> str | None:
    """What is wrong with a shape as a file gives it; None for one that can be worked with.

    Args:
        shape: sizes, and names of symbols, which count as 1.
        most: elements that are too many.
    """
    sizes = [size for size in shape if isinstance(size, int)]
    if negative := [size for size in sizes if size < 0]:
        return f"has the dimension {negative[0]}"
    if (elements := math.prod(sizes)) > most:
        return f"has {' x '.join(map(str, sizes))} = {elements} elements, and {most} are the most"
    return None
