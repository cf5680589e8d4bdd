"""Attention maps as pictures: one map over its frame, a sheet of a clip, a slice of the correlation volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from avsbg.export.visualize.maps import TITLES, VisualizeError
from avsbg.runtime.segment.overlay import tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

# The longer side of a picture of one map; larger videos are shrunk to it.
LONGEST = 640
COLOURS = "turbo"
# Of a sheet and of slices: inches, and how many pixels one has.
_TILE, _MARGIN, _DPI = 1.9, 1.3, 100


@dataclass(frozen=True)
class Row:
    """A row of a sheet: one stage of one kind of map over the frames of a clip."""

    kind: str
    stage: int
    maps: Array  # `[T, h, w]`
    low: float  # of the colour scale
    high: float  # of the colour scale


def check_matplotlib() -> None:
    """Raise a VisualizeError where matplotlib is missing, before the work."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise VisualizeError(
            f"the pictures need matplotlib, which cannot be imported: {error}.",
            "Install it with `pip install 'avsbg[visualize]'`.",
        ) from error


def colour_scale(maps: Array) -> tuple[float, float]:
    """The ends of the colour scale of a stage: its 1 and 99 % quantiles over all frames, so that frames compare."""
    low, high = np.quantile(maps, (0.01, 0.99))
    return float(low), float(max(high, low + 1e-6))


def thumbnail(pixels: Array) -> Array:
    """A frame as pictures show it, uint8 `[h, w, 3]`."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((LONGEST, LONGEST))
    return np.asarray(image)


def heat(picture: Array, values: Array, low: float, high: float) -> Array:
    """A map `[rows, columns]`, interpolated bilinearly, laid over all of a picture, half and half: uint8 `[h, w, 3]`.

    `low` and `high` are the ends of the colour scale.
    """
    from matplotlib import colormaps

    height, width = picture.shape[:2]
    smooth = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    coloured = colormaps[COLOURS](np.clip((np.asarray(smooth) - low) / (high - low), 0, 1), bytes=True)[..., :3]
    mixed: Array = (picture >> 1) + (coloured >> 1)
    return mixed


def save_sheet(
    path: Path, title: str, *, seconds: Sequence[int], pictures: Sequence[Array], masks: Array, rows: Sequence[Row]
) -> None:
    """Write the sheet of a clip: frames, masks, then a row for each stage of each map, with its colour scale.

    `seconds` are the numbers of the frames, `pictures`; masks are bool `[T, H, W]`, in any size.
    """
    aspect = pictures[0].shape[0] / pictures[0].shape[1]
    size = (_MARGIN + _TILE * len(pictures) + 0.9, 0.6 + (_TILE * aspect + 0.12) * (2 + len(rows)))
    figure, grid = _figure(title, size, 2 + len(rows), len(pictures))
    small = (pictures[0].shape[1], pictures[0].shape[0])
    for column, (second, picture) in enumerate(zip(seconds, pictures, strict=True)):
        mask = np.asarray(Image.fromarray(masks[column]).resize(small, Image.Resampling.NEAREST))
        _show(grid[0, column], picture).set_title(f"{second} s", fontsize=8)
        _show(grid[1, column], tint(picture, mask))
        for number, row in enumerate(rows):
            _show(grid[2 + number, column], heat(picture, row.maps[column], row.low, row.high))
    _label(grid[0, 0], "frame")
    _label(grid[1, 0], "mask")
    for number, row in enumerate(rows):
        _label(grid[2 + number, 0], f"{TITLES[row.kind]}\nstage {row.stage}: {row.maps.shape[1]} x {row.maps.shape[2]}")
        _colour_bar(figure, grid[2 + number, :], row.low, row.high)
    figure.savefig(path, bbox_inches="tight")  # labels may reach beyond what the layout reserves


@dataclass(frozen=True)
class SlicePicture:
    """One stage of the picture of a pixel's slices."""

    stage: int
    values: Array  # `[h, w]`, the slice after the ReLU
    cell: tuple[int, int]  # row and column of the position that holds the pixel


def save_slices(
    path: Path,
    title: str,
    *,
    frame: Array,
    partner: Array,
    labels: tuple[str, str],
    pixel: tuple[float, float],
    slices: Sequence[SlicePicture],
) -> None:
    """Write the slices of a pixel, a row for each stage: its own frame with the pixel, the partner with the slice.

    The frames are uint8 `[h, w, 3]`, with `labels` above them; `pixel` is x and y, as shares of the frame.
    """
    from matplotlib.patches import Rectangle

    height, width = frame.shape[:2]
    tile = 3.2
    size = (_MARGIN + 2 * tile + 0.9, 0.7 + (tile * height / width + 0.15) * len(slices))
    figure, grid = _figure(title, size, len(slices), 2)
    for column, label in enumerate(labels):
        grid[0, column].set_title(label, fontsize=8)
    for (own, other), one in zip(grid, slices, strict=True):
        rows, columns = one.values.shape
        low = float(one.values.min())
        high = max(float(one.values.max()), low + 1e-6)
        _show(own, frame)
        # The position that holds the pixel, which is all that this stage knows of it.
        box = (one.cell[1] * width / columns - 0.5, one.cell[0] * height / rows - 0.5)
        own.add_patch(Rectangle(box, width / columns, height / rows, fill=False, edgecolor="white", linewidth=1))
        x, y = pixel[0] * width - 0.5, pixel[1] * height - 0.5
        own.plot(x, y, marker="+", markersize=12, markeredgewidth=2, color="red")
        _show(other, heat(partner, one.values, low, high))
        best = np.unravel_index(int(one.values.argmax()), one.values.shape)
        centre = ((best[1] + 0.5) * width / columns - 0.5, (best[0] + 0.5) * height / rows - 0.5)
        other.plot(*centre, marker="x", markersize=8, markeredgewidth=2, color="white")
        _label(own, f"stage {one.stage}: {rows} x {columns}")
        _colour_bar(figure, [own, other], low, high)
    figure.savefig(path)


def _figure(title: str, size: tuple[float, float], rows: int, columns: int) -> tuple[Figure, Any]:
    """A figure of a size in inches, and its grid of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _show(axes: Axes, pixels: Array) -> Axes:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlim(-0.5, pixels.shape[1] - 0.5)
    axes.set_ylim(pixels.shape[0] - 0.5, -0.5)
    return axes


def _label(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=8, rotation=0, ha="right", va="center")


def _colour_bar(figure: Figure, row: Any, low: float, high: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(low, high), COLOURS), ax=list(row), fraction=0.05, pad=0.01)
    bar.ax.tick_params(labelsize=7)
