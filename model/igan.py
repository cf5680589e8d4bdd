"""iGAN (arXiv 2104.10127), the generator for salient objects, as its released code computes it; no sound.

Data flow: Swin-B -> neck -> latent beside the coarsest map -> all maps enlarged to the finest -> channel attention and
a sum of dilated convolutions -> logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avsbg.model.avs_bg import Neck
from avsbg.model.avsbench import DilatedNeck
from avsbg.model.salient import (
    CHANNELS,
    WIDTH,
    ResidualChannelAttention,
    SalientNetwork,
    SalientStages,
    SwinEncoder,
    append_latent,
    enlarge,
)
from avsbg.model.variants import Variant


class Decoder(nn.Module):
    """All maps at the finest one's size, side by side, to logits of a quarter of the frame's size."""

    def __init__(self) -> None:
        super().__init__()
        self.rcab_conv = ResidualChannelAttention(4 * WIDTH)
        self.aspp_head = DilatedNeck(4 * WIDTH, 1, bias=False)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Four maps `[N, 32, h, w]` to `[N, 128, 96, 96]` and `[N, 1, 96, 96]`."""
        attended = self.rcab_conv(torch.cat([enlarge(one, 2**index) for index, one in enumerate(maps)], dim=1))
        return [attended, self.aspp_head(attended)]


class Igan(SalientNetwork):
    """The network; see the module's docstring.

    In the release the encoder's last stage, 25.2 of 87.3 million parameters, runs and nothing uses its output. The
    efficient form is without it.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.encoder = SwinEncoder(last_stage=variant.form == "published")
        self.neck = nn.ModuleList(Neck(channels, WIDTH) for channels in CHANNELS[:4])
        self.noise_conv = nn.Conv2d(WIDTH + self.latent_width, WIDTH, 1)
        self.decoder = Decoder()

    def segment(self, frames: Tensor, latent: Tensor) -> SalientStages:
        """As `SalientNetwork.segment` says."""
        encoded = self.encoder(frames)[:4]
        reduced = [reduce(one) for reduce, one in zip(self.neck, encoded, strict=True)]
        coarsest = self.noise_conv(append_latent(reduced[-1], latent))
        decoded = self.decoder([*reduced[:-1], coarsest])
        return SalientStages(encoded, reduced, coarsest, decoded, enlarge(decoded[-1], 4))
