"""From AVSBench's raw videos to what the dataset reads: five frames, the sound, and its log-mel patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from avsbg.atomic import atomic_file
from avsbg.model.training.data import clip_log_mel
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import FRAMES, Clip
from avsbg.model.training.media import read_frames, read_sound, resize, write_wav


def seconds_of(clip: Clip) -> int:
    """How many seconds of a clip's video are shown: five, but no more than there are up to second 10 of the original.

    AVSBench cut its videos from ten-second ones, so that those which start after second 5 are shorter.
    """
    return max(1, min(FRAMES, 10 - int(clip.start)))


def prepare_clip(clip: Clip, size: tuple[int, int]) -> None:
    """Write the frames, the WAV file and the log-mel patches of one clip; each file is complete or not there.

    Args:
        clip: whose `video` exists.
        size: height and width of the frames.

    Raises:
        DatasetError: the video is missing, cannot be decoded, or has no sound or too much of it.
    """
    if not clip.video.is_file():
        raise DatasetError(f"{clip.video} does not exist.")
    for k, frame in enumerate(read_frames(clip.video, seconds_of(clip)), start=1):
        with atomic_file(clip.frame(k)) as temporary:
            Image.fromarray(resize(frame, *size).numpy()).save(temporary)
    write_wav(clip.wav, read_sound(clip.video))
    patches = clip_log_mel(clip.wav)
    with atomic_file(clip.log_mel) as temporary:
        np.save(temporary, patches.numpy(), allow_pickle=False)


def is_prepared(clip: Clip) -> bool:
    """Whether everything that `prepare_clip` writes is there; the log-mel patches are its last file."""
    return clip.log_mel.is_file() and all(clip.frame(k).is_file() for k in range(1, seconds_of(clip) + 1))


def prepare(
    clips: Sequence[Clip],
    *,
    size: tuple[int, int],
    force: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> tuple[int, list[str]]:
    """Prepare clips; one that fails is noted and the others go on.

    Args:
        clips: of `read_clips`.
        size: height and width of the frames.
        force: prepare those again that are complete.
        advance: called after each clip.

    Returns:
        how many were prepared, and a line for each that could not be.
    """
    prepared, failures = 0, []
    for clip in clips:
        if force or not is_prepared(clip):
            try:
                prepare_clip(clip, size)
                prepared += 1
            except DatasetError as error:
                failures.append(error.message)
        advance()
    return prepared, failures
