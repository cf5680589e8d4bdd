"""Clips as the networks see them: T frames in a row, batches flattened clip-major."""

from __future__ import annotations

from torch import Tensor

from avsbg.errors import AvsbgError
from avsbg.model.record import EMBEDDING_WIDTH

AUDIO_WIDTH = EMBEDDING_WIDTH
SIZE_MULTIPLE = 32
MIN_FRAMES = 2


class ClipShapeError(AvsbgError, ValueError):
    """Frames or audio embeddings whose shape or type the networks cannot work with."""


def check_clip(frames: Tensor, audio: Tensor, *, min_frames: int = MIN_FRAMES) -> None:
    """Check the networks' inputs, frames `[B, T, 3, H, W]` and audio `[B, T, 128]`, or raise a `ClipShapeError`."""
    check_frames(frames, min_frames=min_frames)
    if audio.dim() != 3 or audio.shape[2] != AUDIO_WIDTH or audio.shape[1] != frames.shape[1]:
        wanted = f"[B, T, {AUDIO_WIDTH}] with the frames' T = {frames.shape[1]}"
        raise ClipShapeError(f"audio embeddings must be {wanted}, not {list(audio.shape)}.")


def check_frames(frames: Tensor, *, min_frames: int = 1, multiple: int = SIZE_MULTIPLE) -> None:
    """Check frames `[B, T, 3, H, W]`, or raise a `ClipShapeError`."""
    if frames.dim() != 5 or frames.shape[2] != 3:
        raise ClipShapeError(f"frames must be [B, T, 3, H, W], not {list(frames.shape)}.")
    if not frames.is_floating_point():
        raise ClipShapeError(f"frames must be scaled and normalised floating-point numbers, not {frames.dtype}.")
    height, width = frames.shape[3:]
    if frames.shape[1] < min_frames:
        raise ClipShapeError(f"a clip needs at least {min_frames} frames, not {frames.shape[1]}.")
    if height % multiple or width % multiple or not height or not width:
        raise ClipShapeError(f"height and width must be multiples of {multiple}, not {height} x {width}.")


def check_sound(frames: Tensor, sound: Tensor, *, rows: int | None = None, columns: int | None = None) -> None:
    """Check spectrograms `[B, S, rows, columns]` of the frames, or one for all; else a `ClipShapeError`.

    `rows` or `columns` is the number of frequencies, by the axis that has them; the other, of times, has any length.
    """
    fits = sound.dim() == 4 and rows in (None, sound.shape[2]) and columns in (None, sound.shape[3])
    if not fits or sound.shape[1] not in (1, frames.shape[1]):
        wanted = f"[B, S, {rows or 'rows'}, {columns or 'columns'}] with S = 1 or the frames' T = {frames.shape[1]}"
        raise ClipShapeError(f"spectrograms must be {wanted}, not {list(sound.shape)}.")


def split_clips(rows: Tensor, frames_per_clip: int) -> Tensor:
    """`[B * T, ...]`, clip-major, to `[B, T, ...]`."""
    return rows.reshape(-1, frames_per_clip, *rows.shape[1:])
