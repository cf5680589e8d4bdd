"""The shape of clips that an export fixes, and its errors. Free of torch, so that mistakes are told at once."""

from __future__ import annotations

from dataclasses import dataclass

from avsbg.errors import AvsbgError


class ExportError(AvsbgError):
    """An export that cannot be made, or whose result is wrong and therefore not kept."""


@dataclass(frozen=True)
class ClipShape:
    """Frames per clip, and their size in pixels; by default the papers' 5 frames of 224 x 224.

    An ExportError says that there are fewer than 2 frames, or that a side is not a multiple of 32.
    """

    frames: int = 5
    height: int = 224
    width: int = 224

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ExportError(f"a clip needs at least 2 frames, not {self.frames}.", "The papers use 5.")
        if self.height < 32 or self.width < 32 or self.height % 32 or self.width % 32:
            raise ExportError(
                f"height and width must be multiples of 32, not {self.height} x {self.width}.", "The papers use 224."
            )

    @classmethod
    def parse(cls, frames: int, size: str) -> ClipShape:
        """Read a size as users write it, `224` or `HEIGHTxWIDTH`; an ExportError if it is neither, or out of range."""
        height, _, width = size.partition("x")
        if not height.isdecimal() or not (width or height).isdecimal():
            raise ExportError(f"a size is a number or HEIGHTxWIDTH, not {size!r}.", "For instance 224, or 256x448.")
        return cls(frames, int(height), int(width or height))


def check_streamable(network: str) -> None:
    """Raise an ExportError unless a network's masks can be computed from a frame and its neighbour."""
    if network == "avsbench":
        raise ExportError(
            "avsbench cannot be streamed: its TPAVI sums over all frames of a clip, so each mask depends on every "
            "frame, and one frame with its neighbour does not determine it.",
            "Leave out --stream and run clips, or stream avs-bg, in which only neighbouring frames interact.",
        )
