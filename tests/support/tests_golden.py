"""Golden vectors: outputs of the released code on weights and inputs that a formula makes (numpy only).

`first64`, `probe64` and `stats` summarise a tensor: its first 64 values, 64 values spread evenly over it, and mean,
standard deviation, minimum, maximum and L2 norm in float64.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "golden"
SALT = "avsbg-ref-v1"


def rng(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(crc32(f"{SALT}:{name}".encode())))


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def normal(case: str, name: str, shape: list[int], scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return torch.from_numpy((rng(f"{case}/{name}").standard_normal(shape) * scale + shift).astype(np.float32))


def frames(case: str, rows: int, height: int = 224, width: int = 224) -> torch.Tensor:
    noise = rng(f"{case}/noise").standard_normal([rows, 3, height, width])
    block = rng(f"{case}/block").standard_normal([rows, 3, height // 32, width // 32])
    return torch.from_numpy((noise + 1.5 * block.repeat(32, axis=2).repeat(32, axis=3)).astype(np.float32))


def audio(case: str, rows: int) -> torch.Tensor:
    return torch.from_numpy(rng(f"{case}/audio").random([rows, 128]).astype(np.float32))


def masks(case: str, rows: int, side: int = 224, block: int = 16) -> torch.Tensor:
    values = rng(f"{case}/gt").standard_normal([rows, 1, side // block, side // block])
    mask = (values.repeat(block, axis=2).repeat(block, axis=3) > 0.2).astype(np.float32)
    mask[4::5] = 0
    return torch.from_numpy(mask)


def waveform() -> np.ndarray:
    t = np.arange(80000) / 16000
    tone = 0.30 * np.sin(2 * np.pi * 220 * t) + 0.20 * np.sin(2 * np.pi * (500 * t + 150 * t**2))
    warble = 0.15 * np.sin(2 * np.pi * 3300 * t) * np.sin(2 * np.pi * 0.7 * t) ** 2
    return tone + warble + 0.05 * rng("c1/wave").standard_normal(80000)


def int16(wave: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int16)


def assert_summary(golden: dict[str, np.ndarray], name: str, tensor: torch.Tensor, rtol: float, atol: float) -> None:
    """Hold a tensor against its summarised golden; the tolerances apply to values, and scaled to the norm."""
    values = tensor.detach().numpy()
    assert list(values.shape) == golden[f"{name}.shape"].tolist(), name
    flat = values.reshape(-1)
    probes = np.arange(64) * (flat.size - 1) // 63
    np.testing.assert_allclose(flat[:64], golden[f"{name}.first64"], rtol=rtol, atol=atol, err_msg=name)
    np.testing.assert_allclose(flat[probes], golden[f"{name}.probe64"], rtol=rtol, atol=atol, err_msg=name)
    wide = flat.astype(np.float64)
    stats = [wide.mean(), wide.std(), wide.min(), wide.max(), np.linalg.norm(wide)]
    np.testing.assert_allclose(stats, golden[f"{name}.stats"], rtol=max(rtol, 1e-5), atol=atol, err_msg=name)
