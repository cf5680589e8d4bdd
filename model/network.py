"""The interface of a network: what its module must have beside `forward`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avsbg.model.record import NetworkRecord
from avsbg.model.registry import NETWORKS
from avsbg.model.variants import Variant, VariantError


@dataclass
class Stages:
    """Intermediates of a forward pass; a network with more of them derives its own."""

    logits: Tensor  # [B, T, H, W], of several classes [B, T, classes, H, W]


class Network(nn.Module):
    """A network in which each mask needs only its own frame; networks that mix frames override the methods that differ.

    `forward(frames, sound)` takes normalised frames `[B, T, 3, H, W]` and the sound in the form that its record names,
    with a time axis of T, or of 1 where the clip shares it; without sound in its record, `forward(frames)`. It returns
    logits `[B, T, H, W]`.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant

    @property
    def record(self) -> NetworkRecord:
        """The network's entry of the registry."""
        return NETWORKS[self.variant.network]

    def probability(self, logits: Tensor) -> Tensor:
        """The probability that a pixel sounds, of the same shape as logits of one class; the record says the rule."""
        return torch.sigmoid(logits)

    def forward_stages(self, *inputs: Any, **options: Any) -> Any:
        """As `forward`, with what is computed on the way, in a dataclass that has `logits`."""
        return Stages(self(*inputs, **options))

    def feature_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """The shapes of what `encode` returns for one frame."""
        classes = self.variant.classes
        return [(1, height, width) if classes == 1 else (1, classes, height, width)]

    def encode(self, *inputs: Any, **_: Any) -> list[Tensor]:
        """Compute, of single frames of a stream, what `decode` makes masks of; here the logits, with an axis more.

        The arguments are those of `forward` without their axes of time: frames `[N, 3, H, W]`, sound `[N, ...]`. A
        `VariantError` of a network that mixes all frames of a clip.
        """
        if self.record.mixes_frames is not None:
            raise VariantError(f"{self.record.name} encodes no frame by itself: {self.record.mixes_frames}.")
        return [self(*(one[:, None] for one in inputs))]

    def decode(self, features: list[Tensor], partner: list[Tensor] | None) -> Tensor:
        """The logits `[N, H, W]` of frames from their features, and their partners' where frames have one."""
        del partner
        return features[0][:, 0]

    @property
    def has_partners(self) -> bool:
        """Whether `decode` needs the features of a neighbouring frame."""
        return False
