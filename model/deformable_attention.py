"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159) in standard operators.

One four-dimensional GridSample per level, the only form that TensorRT has; sizes are Python integers, so that a graph
of one size holds its reference points as constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Sizes = Sequence[tuple[int, int]]  # height and width of each level, in the order of their tokens


def reference_points(sizes: Sizes) -> np.ndarray:
    """The centres (x, y) of all cells in [0, 1], float32 `[S, 2]`: levels one after the other, rows first."""
    levels = []
    for height, width in sizes:
        y, x = np.mgrid[0:height, 0:width]
        levels.append(np.stack([(x.ravel() + 0.5) / width, (y.ravel() + 0.5) / height], axis=1))
    return np.concatenate(levels).astype(np.float32)


class DeformableAttention(nn.Module):
    """Each query attends to a few points near its own place on every level, sampled bilinearly, zeros outside."""

    def __init__(self, width: int = 256, heads: int = 8, levels: int = 3, points: int = 4) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        # Training starts from points on rays, one direction per head, as far out as their number.
        angle = torch.arange(heads) * (2 * pi / heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=1)
        direction = direction / direction.abs().amax(dim=1, keepdim=True)
        distance = torch.arange(1, points + 1)[None, None, :, None]
        rays = direction[:, None, None] * distance.expand(heads, levels, points, 1)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(rays.flatten())

    def forward(self, query: Tensor, tokens: Tensor, sizes: Sizes) -> Tensor:
        """Attend.

        Args:
            query: `[N, S, C]`, one for each token, positions added.
            tokens: `[N, S, C]`, the levels' cells one after the other, rows first.
            sizes: of the levels; S is the sum of their products.

        Returns:
            `[N, S, C]`.
        """
        value = self.value_proj(tokens).transpose(1, 2).unflatten(1, (self.heads, -1))  # [N, heads, C / heads, S]
        offsets = self.sampling_offsets(query).unflatten(2, (self.heads, self.levels, self.points, 2))
        weights = self.attention_weights(query).unflatten(2, (self.heads, -1)).softmax(dim=-1).transpose(1, 2)
        centre = torch.tensor(2 * reference_points(sizes) - 1)[:, None, None]  # grids reach from -1 to 1
        levels: list[Tensor] = []
        start = 0
        for index, (height, width) in enumerate(sizes):
            level = value[..., start : start + height * width].flatten(0, 1).unflatten(2, (height, width))
            start += height * width
            # Offsets count cells of the level that is sampled.
            grid = centre + offsets[:, :, :, index] * torch.tensor([2.0 / width, 2.0 / height])
            grid = grid.transpose(1, 2).flatten(0, 1)  # [N * heads, S, points, 2]
            sampled = F.grid_sample(level, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            share = weights[..., index * self.points : (index + 1) * self.points].flatten(0, 1)[:, None]
            levels.append((sampled * share).sum(dim=-1))
        attended = torch.stack(levels).sum(dim=0)  # [N * heads, C / heads, S]
        output: Tensor = self.output_proj(attended.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2))
        return output
