"""AVSBench as a PyTorch dataset: samples, batches, and the augmentations of our own recipe.

Files become tensors exactly as the published loaders do it: nothing is resized, and neither publication augments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from avsbg.model.clips import SIZE_MULTIPLE
from avsbg.model.front_end import BANDS, PATCH_FRAMES, log_mel
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import FRAMES, Clip, Split, Task, read_clips
from avsbg.model.training.media import read_sound

LOG_MEL_SHAPE = (FRAMES, 1, PATCH_FRAMES, BANDS)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
# Of varied sound, at most: mel bins up or down, the range of pitches and of tempo, the logarithm of a band's and of all
# bands' loudness (standard deviations).
_SHIFT, _RANGE, _TEMPO = 3.0, 0.1, 0.25
_BANDS, _BAND_GAIN, _GAIN = 8, 0.7, 0.7


class ClipFiles(Protocol):
    """The facts that a predictor may ask of a clip beside its arrays."""

    @property
    def name(self) -> str:
        """Of the video, without suffix."""

    @property
    def category(self) -> str:
        """The category of the sounding object, if the data set states it."""

    @property
    def wav(self) -> Path:
        """Its sound."""


class Sample(NamedTuple):
    """One clip."""

    clip: ClipFiles
    frames: Tensor  # uint8 [T, H, W, 3], RGB; T is 5 unless the data set was asked for fewer
    log_mel: Tensor  # float32 [T, 1, 96, 64]
    masks: Tensor  # float32 [T, H, W], or [1, H, W] of the first frame (training on S4); int64 of classes


class Batch(NamedTuple):
    """B clips of one split: as `Sample`, with a leading dimension."""

    clips: tuple[ClipFiles, ...]
    frames: Tensor
    log_mel: Tensor
    masks: Tensor


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack clips of one split."""
    clips, frames, log_mels, masks = zip(*samples, strict=True)
    return Batch(clips, torch.stack(frames), torch.stack(log_mels), torch.stack(masks))


class AvsBenchDataset(Dataset[Sample]):
    """A split of AVSBench, in its own layout; its clips are in the table's order.

    `sound` is `log-mel` (the `.npy` files of `audio_log_mel`) where the first clip has one, else `wav`; `frames` are
    loaded of each clip, from the first on; `height` and `width` are the first clip's. Every clip has to have them.
    """

    def __init__(self, root: Path, task: Task, split: Split, *, frames: int = FRAMES) -> None:
        """Open a split; see `avsbg.model.training.layout` for what lies where below `root`.

        Raises:
            DatasetError: no table, no clip, no sound, or frames whose size is no multiple of 32. Later: a file is
                missing, cannot be read, or has another shape than the split's first clip.
        """
        self.task, self.split, self.frames = task, split, frames
        self.clips = read_clips(Path(root), task, split)
        self.sound = _sound_source(self.clips[0])
        self.height, self.width, _ = open_image(self.clips[0].frame(1), frame_array).shape
        if self.height % SIZE_MULTIPLE or self.width % SIZE_MULTIPLE:
            raise DatasetError(
                f"{self.clips[0].frame(1)} has {self.height} x {self.width} pixels, no multiples of {SIZE_MULTIPLE}.",
                "Prepare the frames with `avsbg data prepare`.",
            )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index]
        frames = [self._read(clip.frame(k), frame_array) for k in range(1, self.frames + 1)]
        as_mask = partial(mask_array, task=self.task)
        masks = [self._read(clip.mask(k), as_mask) for k in range(1, min(clip.masks, self.frames) + 1)]
        return Sample(clip, torch.stack(frames), self.log_mel(clip)[: self.frames], torch.stack(masks))

    def _read(self, path: Path, convert: Callable[[Image.Image], Tensor]) -> Tensor:
        pixels = open_image(path, convert)
        if pixels.shape[:2] != (self.height, self.width):
            found, wanted = f"{pixels.shape[0]} x {pixels.shape[1]} pixels", f"{self.height} x {self.width}"
            message = f"{path} has {found}; the first frame of the split has {wanted}."
            raise DatasetError(message, "All frames and masks of a split have one size.")
        return pixels

    def log_mel(self, clip: Clip) -> Tensor:
        """The log-mel patches of a clip alone, float32 `[5, 1, 96, 64]`."""
        if self.sound == "wav":
            return clip_log_mel(clip.wav)
        try:
            patches = np.load(clip.log_mel, allow_pickle=False)
        except (EOFError, OSError, ValueError) as error:  # numpy's for an empty file, for none, for another kind
            hint = "Make it again with `avsbg data convert-avsbench`."
            raise DatasetError(f"{clip.log_mel} cannot be read: {error}.", hint) from error
        if patches.shape != LOG_MEL_SHAPE or patches.dtype != np.float32:
            found = f"{patches.dtype} {list(patches.shape)}"
            raise DatasetError(f"{clip.log_mel} holds {found}, not float32 {list(LOG_MEL_SHAPE)}.")
        return torch.from_numpy(patches)


def describe_data(dataset: AvsBenchDataset) -> dict[str, Any]:
    """A split's description for a run's record; the digest is of the clips' names in their order."""
    names = "\n".join(clip.name for clip in dataset.clips)
    return {
        "clips": len(dataset),
        "height": dataset.height,
        "width": dataset.width,
        "sound": dataset.sound,
        "sha256": hashlib.sha256(names.encode()).hexdigest(),
    }


def clip_log_mel(path: Path) -> Tensor:
    """The log-mel patches of a clip's sound, float32 `[5, 1, 96, 64]`; a short file repeats its last patch.

    A `DatasetError` if the file cannot be read, is shorter than one patch (15,600 samples), or holds more than five.
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
        hint = "Convert AVSBench's pickles once with `avsbg data convert-avsbench`."
        raise DatasetError(f"{clip.log_mel_pickle} is a pickle, which could run code when it is read.", hint)
    hint = "Make them from the raw videos with `avsbg data prepare`."
    raise DatasetError(f"the clip {clip.name} has no sound: neither {clip.log_mel} nor {clip.wav} exists.", hint)


def open_image(path: Path, read: Callable[[Image.Image], Tensor]) -> Tensor:
    """Read an image file; a `DatasetError` if there is none, or `read` raises a `ValueError` that says what it is."""
    try:
        with Image.open(path) as image:
            return read(image)
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist.", "Every clip has five frames and its masks.") from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read as an image: {error}.") from error
    except ValueError as error:
        raise DatasetError(f"{path} is {error}.", "Masks of MS3 are grey or 1-bit, with 0 and 255.") from error


def normalise(frames: Tensor) -> Tensor:
    """Normalise uint8 `[..., H, W, 3]`, RGB, with ImageNet's mean and deviation to float32 `[..., 3, H, W]`."""
    mean, std = (torch.tensor(values, device=frames.device) for values in (_MEAN, _STD))
    return ((frames.to(torch.float32) / 255.0 - mean) / std).movedim(-1, -3)


def frame_array(image: Image.Image) -> Tensor:
    """Convert an image file to uint8 `[H, W, 3]`, RGB."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def mask_array(image: Image.Image, task: Task) -> Tensor:
    """Convert a mask file to float32 `[H, W]`.

    S4 masks become 1-bit (grey values with error diffusion), so 0 or 1. MS3 masks become palette indices divided by
    255: grey and 1-bit files with the values 0 and 255 give 0 and 1. A colour file would give indices of whatever
    palette Pillow chooses: it is refused by a ValueError, as is a palette file with other indices than 0 and 255.
    """
    if task == "s4":
        return torch.from_numpy(np.array(image.convert("1"))).to(torch.float32)
    indices = torch.from_numpy(np.array(image.convert("P")))
    if image.mode == "P" and not bool(((indices == 0) | (indices == 255)).all()):
        raise ValueError("a palette file whose indices are not 0 and 255")
    if image.mode not in ("1", "L", "P"):
        raise ValueError(f"an image of mode {image.mode}, neither grey nor 1-bit")
    return indices.to(torch.float32) / 255.0


class _Guarded(Dataset["Sample | DatasetError"]):
    """A data set that returns errors: raised in another process, they would arrive wrapped in its traceback."""

    def __init__(self, dataset: AvsBenchDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Sample | DatasetError:
        try:
            return self.dataset[index]
        except DatasetError as error:
            return error


def _collate(samples: Sequence[Sample | DatasetError]) -> Batch | DatasetError:
    errors = [sample for sample in samples if isinstance(sample, DatasetError)]
    return errors[0] if errors else collate([sample for sample in samples if not isinstance(sample, DatasetError)])


def load_batches(
    dataset: AvsBenchDataset, batches: Sequence[list[int]], *, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Load batches of clips' indices in order by so many processes, 0: by this; a `DatasetError` as of the data set."""
    loader = DataLoader(
        _Guarded(dataset),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else it takes its seed from the random numbers that training draws from
    )
    for batch in loader:
        if isinstance(batch, DatasetError):
            raise batch
        yield batch


def jitter_colours(frames: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of each clip at random; one clip in ten turns grey.

    A data set with one photo for most classes would else be told apart by its colours alone. All frames of a clip
    change alike. The numbers are drawn from PyTorch's own generator of the CPU.

    Args: frames uint8 `[B, T, H, W, 3]`. Returns: the same shape and type.
    """
    from torchvision.transforms import v2

    jitter = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.6, hue=0.15)
    change = v2.Compose([jitter, v2.RandomGrayscale(0.1)])
    return torch.stack([change(clip.movedim(-1, -3)).movedim(-3, -1) for clip in frames])


def vary_sound(log_mel: Tensor) -> Tensor:
    """Vary sound as another recording of the same object might: in pitch, tempo and spectrum.

    Pitch, tempo and beginning are changed by sampling the spectrogram anew, the spectrum by a smooth random curve over
    eight bands. All patches of a clip change alike. The numbers are drawn from PyTorch's own generator of the CPU.

    Args: log-mel patches `[N, ..., 96, 64]` (time, mel), N clips or patches that change independently.
    """
    count, height, width = len(log_mel), *log_mel.shape[-2:]
    patches = log_mel.reshape(count, -1, height, width)
    mapping = torch.zeros(count, 2, 3)  # of normalised coordinates: x is pitch, y is time
    pitch_range, pitch_shift, tempo, start = (2 * torch.rand(count) - 1 for _ in range(4))
    mapping[:, 0, 0], mapping[:, 0, 2] = 1 + _RANGE * pitch_range, _SHIFT / (width / 2) * pitch_shift
    mapping[:, 1, 1], mapping[:, 1, 2] = (_TEMPO * tempo).exp(), 0.2 * start
    grid = F.affine_grid(mapping, list(patches.shape), align_corners=False)
    moved = F.grid_sample(patches, grid, padding_mode="reflection", align_corners=False)
    curve = F.interpolate(_BAND_GAIN * torch.randn(count, 1, _BANDS), size=width, mode="linear", align_corners=True)
    return (moved + curve[:, :, None] + _GAIN * torch.randn(count, 1, 1, 1)).reshape(log_mel.shape)
