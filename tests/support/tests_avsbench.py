"""A tiny data set in AVSBench's layout: two coloured squares that move, and a tone that tells which one sounds."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np
from PIL import Image

COUNTS = {"train": 4, "val": 2, "test": 2}
TONES = (300.0, 2500.0)  # Hz, of the red and of the green square
CATEGORIES = ("red", "green")
COLOURS = ((220, 30, 30), (30, 220, 30))


def clip(seed: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames uint8 `[5, size, size, 3]`, masks uint8 `[5, size, size]` of 0 and 255, and sound int16 `[80000]`."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 60, (5, size, size, 3), dtype=np.uint8)
    masks = np.zeros((5, size, size), np.uint8)
    side, sounding = size // 3, seed % 2
    for index in (0, 1):
        top, step = rng.integers(0, size - side), rng.integers(-2, 3)
        left = 0 if index == (seed // 2) % 2 else size - side  # the squares never overlap
        for t in range(5):
            y = int(np.clip(top + t * step, 0, size - side))
            frames[t, y : y + side, left : left + side] = COLOURS[index]
            if index == sounding:
                masks[t, y : y + side, left : left + side] = 255
    time = np.arange(80000) / 16000
    sound = 0.5 * np.sin(2 * np.pi * TONES[sounding] * time) + 0.01 * rng.standard_normal(80000)
    return frames, masks, np.rint(sound * 32767).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.astype("<i2").tobytes())


def write_dataset(root: Path, task: str, size: int = 32, counts: dict[str, int] | None = None) -> Path:
    """Write a task below `root`, sound as WAV files; returns `root`."""
    folder = root / {"s4": "Single-source", "ms3": "Multi-sources"}[task]
    data = folder / f"{task}_data"
    rows = []
    for split, count in (counts or COUNTS).items():
        for _ in range(count):
            name, category = f"clip{len(rows)}", CATEGORIES[len(rows) % 2]
            frames, masks, sound = clip(len(rows), size)
            below = Path(split, category) if task == "s4" else Path(split)
            pictures = data / "visual_frames" / (below / name if task == "s4" else name)
            annotated = data / "gt_masks" / below / name
            for folder_ in (pictures, annotated):
                folder_.mkdir(parents=True)
            for k in range(1, 6):
                suffix = "" if task == "s4" else ".mp4"
                Image.fromarray(frames[k - 1]).save(pictures / f"{name}{suffix}_{k}.png")
                if k == 1 or task == "ms3" or split != "train":
                    Image.fromarray(masks[k - 1]).save(annotated / f"{name}_{k}.png")
            write_wav(data / "audio_wav" / below / f"{name}.wav", sound)
            rows.append((name, 0, category, split) if task == "s4" else (name, split))
    header = ("name", "start", "category", "split") if task == "s4" else ("video_id", "split")
    with (folder / f"{task}_meta_data.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return root
