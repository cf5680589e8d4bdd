"""The look of a video's pixels: their colours and their shape, as its tracks state them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from avsbg.runtime.media.orientation import Orientation

# Matrices and ranges as H.273 and FFmpeg number them.
RGB, BT709, LIMITED, FULL = 0, 1, 1, 2


@dataclass(frozen=True)
class ColourTags:
    """The way to read the numbers of pixels: code points of ITU-T H.273, and FFmpeg's of the range."""

    primaries: int = 2  # 2: unspecified
    transfer: int = 2
    matrix: int = 2
    range: int = 0  # 0: unspecified


UNTAGGED = ColourTags()


def read_colour(frame: Any, stream: Any) -> ColourTags:
    """The colour tags of a track, of which `frame` was decoded."""
    codec = stream.codec_context
    is_rgb = frame.format.is_rgb or frame.format.has_palette
    matrix, spread = (RGB, FULL) if is_rgb else (codec.colorspace, codec.color_range)
    return ColourTags(codec.color_primaries, codec.color_trc, matrix, spread)


def read_pixel_aspect(stream: Any, orientation: Orientation) -> Fraction:
    """The width of a pixel by its height, as displayed; 1 where the track states none. A frame was decoded of it."""
    aspect = Fraction(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    return 1 / aspect if orientation.transposed else aspect
