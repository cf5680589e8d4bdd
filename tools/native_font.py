"""The glyphs that avsbg-run draws legends with: Pillow's default font (Aileron, CC0), as a table for C++.

python -m tools.native_font
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ImageFont

FONT = Path("runtime/native/avsbg_run/font.inc")
PRINTABLE = map(chr, range(32, 127))


def glyph(font: ImageFont.FreeTypeFont, character: str) -> str:
    """A line of the table: advance, place of the bitmap from the text's upper left corner, size, coverage in hex."""
    mask, (left, top) = font.getmask2(character, mode="L")
    width, height = mask.size
    coverage = np.array(mask, np.uint8).reshape(height, width)
    digits = "".join(f"{round(value / 17):x}" for value in coverage.ravel().tolist())
    return f'{{{round(font.getlength(character))}, {left}, {top}, {width}, {height}, "{digits}"}},  // {character!r}'


def main() -> None:
    """Write the table."""
    font = ImageFont.load_default()
    assert isinstance(font, ImageFont.FreeTypeFont)
    head = "// Aileron Regular (CC0), 10 pixels, ASCII from the space on; made by tools/native_font.py.\n"
    FONT.write_text(head + "\n".join(glyph(font, character) for character in PRINTABLE) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
