"""The shape of clips that an export fixes, and its errors. Free of torch, so that mistakes are told at once."""

from __future__ import annotations

from dataclasses import dataclass

from avsbg.errors import AvsbgError
from avsbg.model.record import NetworkRecord


class ExportError(AvsbgError):
    """An export that cannot be made, or whose result is wrong and therefore not kept."""


@dataclass(frozen=True)
class ClipShape:
    """Frames per clip, and their size in pixels; by default the papers' 5 frames of 224 x 224.

    An ExportError says that there are fewer than `min_frames`, or that a side is not a multiple of 32.
    """

    frames: int = 5
    height: int = 224
    width: int = 224
    min_frames: int = 2  # of the network

    def __post_init__(self) -> None:
        if self.frames < self.min_frames:
            least = f"{self.min_frames} frame" + ("s" if self.min_frames > 1 else "")
            raise ExportError(f"a clip needs at least {least}, not {self.frames}.", "The papers use 5.")
        if self.height < 32 or self.width < 32 or self.height % 32 or self.width % 32:
            raise ExportError(
                f"height and width must be multiples of 32, not {self.height} x {self.width}.", "The papers use 224."
            )

    @classmethod
    def parse(cls, frames: int, size: str, min_frames: int = 2) -> ClipShape:
        """Read a size as users write it, `224` or `HEIGHTxWIDTH`; an ExportError if it is neither, or out of range."""
        height, _, width = size.partition("x")
        if not height.isdecimal() or not (width or height).isdecimal():
            raise ExportError(f"a size is a number or HEIGHTxWIDTH, not {size!r}.", "For instance 224, or 256x448.")
        return cls(frames, int(height), int(width or height), min_frames)


def check_streamable(record: NetworkRecord) -> None:
    """Raise an ExportError unless a network's masks can be computed from a frame and its neighbour."""
    if record.mixes_frames is not None:
        raise ExportError(
            f"{record.name} cannot be streamed: {record.mixes_frames}, so each mask depends on every frame, and one "
            "frame with its neighbour does not determine it.",
            "Leave out --stream and run clips, or stream avs-bg, in which only neighbouring frames interact.",
        )
