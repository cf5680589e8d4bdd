"""AVSBench as a PyTorch dataset: frames, log-mel patches and masks of each clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from avsbg.model.clips import SIZE_MULTIPLE
from avsbg.model.front_end import BANDS, PATCH_FRAMES, log_mel
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import FRAMES, Clip, Split, Task, read_clips
from avsbg.model.training.media import read_sound
from avsbg.model.training.transforms import frame_array, mask_array

LOG_MEL_SHAPE = (FRAMES, 1, PATCH_FRAMES, BANDS)


class Sample(NamedTuple):
    """One clip."""

    clip: Clip
    frames: Tensor  # uint8 [T, H, W, 3], RGB; T is 5 unless the data set was asked for fewer
    log_mel: Tensor  # float32 [T, 1, 96, 64]
    masks: Tensor  # float32 [T, H, W], or [1, H, W] of the first frame (training on S4)


class Batch(NamedTuple):
    """B clips: as `Sample`, with a leading dimension."""

    clips: tuple[Clip, ...]
    frames: Tensor
    log_mel: Tensor
    masks: Tensor


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack clips of one split."""
    clips, frames, log_mels, masks = zip(*samples, strict=True)
    return Batch(clips, torch.stack(frames), torch.stack(log_mels), torch.stack(masks))


class AvsBenchDataset(Dataset[Sample]):
    """A split of AVSBench, in its own layout.

    Attributes:
        clips: in the table's order.
        sound: where the sound comes from: `log-mel` (the `.npy` files of `audio_log_mel`) where the first clip has
            one, else `wav`. Every clip of the split has to have it.
        frames: that are loaded of each clip, from the first on.
        height, width: of the frames; those of the first clip, and every clip has to have them.
    """

    def __init__(self, root: Path, task: Task, split: Split, *, frames: int = FRAMES) -> None:
        """Open a split; see `avsbg.model.training.layout` for what lies where below `root`.

        Raises:
            DatasetError: no table, no clip, no sound, or frames whose size is no multiple of 32.
        """
        self.task = task
        self.split = split
        self.frames = frames
        self.clips = read_clips(Path(root), task, split)
        self.sound = _sound_source(self.clips[0])
        first = _open_image(self.clips[0].frame(1), frame_array)
        self.height, self.width = first.shape[0], first.shape[1]
        if self.height % SIZE_MULTIPLE or self.width % SIZE_MULTIPLE:
            raise DatasetError(
                f"{self.clips[0].frame(1)} has {self.height} x {self.width} pixels, no multiples of {SIZE_MULTIPLE}.",
                "Prepare the frames with `avsbg data prepare`.",
            )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        """Load a clip.

        Raises:
            DatasetError: a file is missing, cannot be read, or has another shape than the split's first clip.
        """
        clip = self.clips[index]
        frames = torch.stack([self._checked(clip.frame(k)) for k in range(1, self.frames + 1)])
        masks = torch.stack([self._checked_mask(clip.mask(k)) for k in range(1, min(clip.masks, self.frames) + 1)])
        return Sample(clip, frames, self.log_mel(clip)[: self.frames], masks)

    def _checked(self, path: Path) -> Tensor:
        return self._of_size(path, _open_image(path, frame_array))

    def _checked_mask(self, path: Path) -> Tensor:
        return self._of_size(path, _open_image(path, lambda image: mask_array(image, self.task)))

    def _of_size(self, path: Path, pixels: Tensor) -> Tensor:
        if pixels.shape[:2] != (self.height, self.width):
            raise DatasetError(
                f"{path} has {pixels.shape[0]} x {pixels.shape[1]} pixels; the first frame of the split has "
                f"{self.height} x {self.width}.",
                "All frames and masks of a split have one size.",
            )
        return pixels

    def log_mel(self, clip: Clip) -> Tensor:
        """The log-mel patches of a clip alone, float32 `[5, 1, 96, 64]`.

        Raises:
            DatasetError: they are missing, cannot be read, or have another shape.
        """
        if self.sound == "wav":
            return clip_log_mel(clip.wav)
        try:
            patches = np.load(clip.log_mel, allow_pickle=False)
        except (EOFError, OSError, ValueError) as error:  # numpy's for an empty file, for none, for another kind
            raise DatasetError(
                f"{clip.log_mel} cannot be read: {error}.", "Make it again with `avsbg data convert-avsbench`."
            ) from error
        if patches.shape != LOG_MEL_SHAPE or patches.dtype != np.float32:
            raise DatasetError(
                f"{clip.log_mel} holds {patches.dtype} {list(patches.shape)}, not float32 {list(LOG_MEL_SHAPE)}."
            )
        return torch.from_numpy(patches)


def clip_log_mel(path: Path) -> Tensor:
    """The log-mel patches of a clip's sound, float32 `[5, 1, 96, 64]`; a short file repeats its last patch.

    Raises:
        DatasetError: the file cannot be read, is shorter than one patch (15,600 samples), or holds more than five.
    """
    patches = log_mel(read_sound(path))  # averages the channels
    if not 0 < len(patches) <= FRAMES:
        raise DatasetError(
            f"{path} gives {len(patches)} log-mel patches of 0.96 s; a clip has at most {FRAMES} and at least one.",
            "Cut the sound to the 5 seconds of the clip.",
        )
    return torch.cat([patches, patches[-1:].expand(FRAMES - len(patches), *patches.shape[1:])])


def _sound_source(clip: Clip) -> Literal["log-mel", "wav"]:
    if clip.log_mel.is_file():
        return "log-mel"
    if clip.wav.is_file():
        return "wav"
    if clip.log_mel_pickle.is_file():
        raise DatasetError(
            f"{clip.log_mel_pickle} is a pickle, which could run code when it is read.",
            "Convert AVSBench's pickles once with `avsbg data convert-avsbench`.",
        )
    raise DatasetError(
        f"the clip {clip.name} has no sound: neither {clip.log_mel} nor {clip.wav} exists.",
        "Make them from the raw videos with `avsbg data prepare`.",
    )


def _open_image(path: Path, read: Callable[[Image.Image], Tensor]) -> Tensor:
    try:
        with Image.open(path) as image:
            return read(image)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist.", "Every clip has five frames and its masks.") from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read as an image: {error}.") from error
    except ValueError as error:
        raise DatasetError(f"{path} is {error}.", "Masks of MS3 are grey or 1-bit, with 0 and 255.") from error
