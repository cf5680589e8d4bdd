"""Sound and frames of files, for preparing data: the decoding is FFmpeg's, through PyAV."""

from __future__ import annotations

import wave
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from avsbg.atomic import atomic_file
from avsbg.model.front_end import SAMPLE_RATE
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import FRAMES
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.audio import decode_audio
from avsbg.runtime.media.container import displayed, fit_frame, open_media, probe
from avsbg.runtime.media.tracks import choose_track
from avsbg.runtime.media.video import choose_frames

Array = NDArray[Any]

# The place in a second of the frame that stands for it.
FRAME_OFFSET = 15 / 16


def read_sound(path: Path) -> Array:
    """The sound of a file at 16 kHz, int16 `[samples, channels]`; a `DatasetError` if it cannot be read or has none."""
    try:
        with open_media(path) as container:
            track = choose_track(container, "audio", path)
            if track is None:
                raise DatasetError(f"{path} has no sound that can be decoded.")
            stream = container.streams[track.index]
            # Packed samples, which PyAV reads safely of any number of channels.
            resampler = av.AudioResampler(format="s16", layout=stream.layout, rate=SAMPLE_RATE)
            blocks = [block for frame in container.decode(stream) for block in resampler.resample(frame)]
            blocks += resampler.resample(None)
            channels = stream.layout.nb_channels
    except (MediaError, av.FFmpegError) as error:
        raise DatasetError(f"{path} cannot be read as sound: {error}.") from error
    # Packed samples: one row of interleaved channels per block.
    samples = [block.to_ndarray().reshape(-1, channels) for block in blocks]
    return np.concatenate(samples) if samples else np.zeros((0, channels), np.int16)


def read_clip(path: Path, seconds: int) -> tuple[list[Array], Array]:
    """The frames that AVSBench keeps of a video and its sound, read as `avsbg run` reads them.

    With the frame rate rounded to a whole number f, second l is shown by frame int(l f + 15/16 f), close to its end; a
    video that ends earlier repeats its last frame.

    Args:
        path: the video.
        seconds: of the clip, from the first frame on.

    Returns:
        Frames, uint8 `[H, W, 3]` in the video's size, one for each second; and the sound of a clip from the first frame
        on, int16 `[samples, 1]` at 16 kHz, channels averaged.

    Raises:
        DatasetError: it cannot be read, or has no frames or no sound.
    """
    try:
        video = probe(path)
        if not video.has_audio:
            raise DatasetError(f"{path} has no sound that can be decoded.")
        chosen = choose_frames(video, clip_seconds=FRAMES, offset=FRAME_OFFSET, least=seconds)
        frames = [
            np.ascontiguousarray(displayed(fit_frame(frame, video), video.orientation))
            for *_, frame in islice(chosen, seconds)
        ]
        samples = np.concatenate([np.zeros(0, np.float32), *decode_audio(video, SAMPLE_RATE)])
    except MediaError as error:
        raise DatasetError(error.message, error.hint) from error
    samples = samples[: FRAMES * SAMPLE_RATE].clip(-1, 1)
    return frames, np.rint(samples * 32767).astype(np.int16)[:, None]


def write_wav(path: Path, samples: Array) -> None:
    """Write int16 `[samples, channels]` at 16 kHz."""
    with atomic_file(path) as temporary, wave.open(str(temporary), "wb") as writer:
        writer.setnchannels(samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(samples.astype("<i2").tobytes())


def write_clip_video(path: Path, frames: Array, samples: Array, *, rate: int = 1, crf: int = 10) -> None:
    """Write frames, `rate` for each second, with their sound: H.264 and AAC; the format follows the suffix.

    Args: frames uint8 `[T, H, W, 3]`, H and W even; samples int16 `[n, channels]` at 16 kHz, mono or stereo; crf is
        H.264's constant rate factor, 0 to 51, which is small for a good picture.
    """
    form = path.suffix.removeprefix(".")
    with atomic_file(path.resolve()) as temporary, av.open(str(temporary), "w", format=form) as target:
        video = target.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "medium"})
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        sound = target.add_stream("aac", rate=SAMPLE_RATE, layout="mono" if samples.shape[1] == 1 else "stereo")
        for frame in frames:
            target.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        target.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=sound.layout.name)
        block.sample_rate = SAMPLE_RATE
        target.mux(sound.encode(block))
        target.mux(sound.encode(None))


def resize(frame: Array, height: int, width: int) -> Tensor:
    """Bilinear between the four nearest pixels, without antialiasing and ignoring the aspect ratio (OpenCV's default).

    uint8 `[h, w, 3]` to uint8 `[height, width, 3]`.
    """
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].to(torch.float32)
    resized = F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False)
    return resized[0].round().to(torch.uint8).permute(1, 2, 0)
