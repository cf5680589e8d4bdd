"""The attention maps of a video's first clip on one sheet; a module that is imported without what draws them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def can_draw() -> bool:
    """Whether the packages that draw are here."""
    return all(find_spec(name) is not None for name in ("matplotlib", "onnx", "onnx_ir"))


def draw_sheet(bundle: Path, video: Path, folder: Path, *, silent: bool, threshold: float) -> Path:
    """Draw the maps of the first clip in a folder, which is made; returns the sheet. Errors as of `visualize_video`."""
    from avsbg.export.visualize.video import VisualizeOptions, visualize_video
    from avsbg.runtime.bundle import Bundle

    summary = visualize_video(Bundle.open(bundle), video, folder, VisualizeOptions(silent=silent, threshold=threshold))
    return folder / str(summary["clips"][0]["sheet"])
