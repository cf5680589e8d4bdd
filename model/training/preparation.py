"""AVSBench's files made ready for the dataset: frames and sound of raw videos, and log-mel patches without pickles.

AVSBench ships each clip's sound as a pickled PyTorch tensor. Unpickling can run any code the file's author likes, so
the unpickler here knows nothing but the three functions that a tensor consists of, and the tensor's own bytes are read
by PyTorch's loader for weights alone. Nothing else in the project reads a pickle.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.storage import TypedStorage

from avsbg.atomic import atomic_file
from avsbg.errors import first_line
from avsbg.model.training.data import LOG_MEL_SHAPE, clip_log_mel
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import FRAMES, Clip
from avsbg.model.training.media import read_clip, resize, write_wav
from avsbg.progress import Progress
from avsbg.runtime.errors import WorkerError
from avsbg.runtime.processes import IsolatedWorker

MAX_BYTES = 2**20  # 5 x 96 x 64 fp32 values are 120 KiB


def _load_storage(content: bytes) -> TypedStorage:
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(storage, TypedStorage):
        raise pickle.UnpicklingError("the tensor's content is no storage")
    return storage


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """PyTorch's own function of this name, for a log-mel tensor inside its storage alone."""
    if not isinstance(storage, TypedStorage) or storage.dtype != torch.float32 or tuple(size) != LOG_MEL_SHAPE:
        raise pickle.UnpicklingError(f"not a float32 tensor {list(LOG_MEL_SHAPE)}")
    values = torch.tensor([], dtype=torch.float32).set_(storage._untyped_storage)
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if offset < 0 or min(stride) < 0 or last >= len(values):
        raise pickle.UnpicklingError("a tensor that reaches beyond its own content")
    return values.as_strided(size, stride, offset).clone()


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("collections", "OrderedDict"): OrderedDict,
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no tensor needs")
        return _ALLOWED[module, name]


def read_log_mel_pickle(path: Path) -> Tensor:
    """Read an AVSBench `audio_log_mel/*.pkl`: float32 `[5, 1, 96, 64]`; a `DatasetError` if it is anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path} has {path.stat().st_size} bytes; five log-mel patches need about 123,000.")
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error
    try:
        tensor = _TensorUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a damaged or hostile pickle raises anything
        hint = "Use AVSBench's own file, or `avsbg data prepare`."
        raise DatasetError(f"{path} does not hold log-mel patches: {first_line(error)}.", hint) from error
    if not isinstance(tensor, Tensor) or tensor.shape != LOG_MEL_SHAPE or tensor.dtype != torch.float32:
        raise DatasetError(f"{path} holds a {type(tensor).__name__} that is no float32 tensor {list(LOG_MEL_SHAPE)}.")
    return tensor


def convert_log_mels(
    clips: Sequence[Clip], *, force: bool = False, advance: Callable[[], None] = lambda: None
) -> tuple[int, list[str]]:
    """Write `<video>.npy` beside each `<video>.pkl`; the pickles stay.

    With `force`, those are converted again that have their `.npy`; `advance` is called after each clip. Returns how
    many were converted, and a line for each that could not be.
    """

    def convert(clip: Clip) -> None:
        _save_log_mel(clip, read_log_mel_pickle(clip.log_mel_pickle))

    return _process(clips, convert, lambda clip: clip.log_mel.is_file(), force, advance)


def prepare_clips(
    clips: Sequence[Clip], *, size: tuple[int, int], force: bool = False, advance: Callable[[], None] = lambda: None
) -> tuple[int, list[str]]:
    """Prepare clips from their raw videos, with frames of `size` (height, width); as `convert_log_mels` else.

    Videos are decoded in a process of its own: one that crashes the decoder is a failure like others.
    """
    with IsolatedWorker[Clip, None](partial(_open_preparer, size)) as prepare:
        return _process(clips, prepare, _is_prepared, force, advance)


@contextmanager
def _open_preparer(size: tuple[int, int], _: Progress) -> Iterator[Callable[[Clip], None]]:
    yield partial(_prepare_clip, size=size)


def _prepare_clip(clip: Clip, size: tuple[int, int]) -> None:
    """Write the frames, the WAV file and the log-mel patches of one clip; each file is complete or not there."""
    if not clip.video.is_file():
        raise DatasetError(f"{clip.video} does not exist.")
    frames, sound = read_clip(clip.video, seconds_of(clip))
    for k, frame in enumerate(frames, start=1):
        with atomic_file(clip.frame(k)) as temporary:
            Image.fromarray(resize(frame, *size).numpy()).save(temporary)
    write_wav(clip.wav, sound)
    _save_log_mel(clip, clip_log_mel(clip.wav))


def _is_prepared(clip: Clip) -> bool:
    """Whether everything that `_prepare_clip` writes is there; the log-mel patches are its last file."""
    return clip.log_mel.is_file() and all(clip.frame(k).is_file() for k in range(1, seconds_of(clip) + 1))


def seconds_of(clip: Clip) -> int:
    """Seconds of a clip's video that are used: five, but no more than there are up to second 10 of the original.

    AVSBench cut its videos from ten-second ones, so that those which start after second 5 are shorter.
    """
    return max(1, min(FRAMES, 10 - int(clip.start)))


def _process(
    clips: Sequence[Clip],
    make: Callable[[Clip], None],
    is_made: Callable[[Clip], bool],
    force: bool,
    advance: Callable[[], None],
) -> tuple[int, list[str]]:
    made, failures = 0, []
    for clip in clips:
        if force or not is_made(clip):
            try:
                make(clip)
                made += 1
            except WorkerError as error:
                failures.append(f"{clip.video} cannot be read: {error}")
            except DatasetError as error:
                failures.append(error.message)
            except Exception as error:  # one clip's, whatever it is
                failures.append(f"{clip.video} failed: {type(error).__name__}: {first_line(error)}")
        advance()
    return made, failures


def _save_log_mel(clip: Clip, patches: Tensor) -> None:
    with atomic_file(clip.log_mel) as temporary:
        np.save(temporary, patches.numpy(), allow_pickle=False)
