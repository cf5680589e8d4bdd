"""LGVT (arXiv 2112.13528), the generative transformer for salient objects, as its released code computes it; no sound.

Data flow: Swin-B -> convolutions to 32 channels -> latent beside the coarsest map -> decoder that joins one finer map
at a time with all coarser results -> logits. The latent's prior is an energy-based model of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

_DILATIONS = (6, 12, 18, 24)


class Decoder(nn.Module):
    """Steps from coarse to fine; each is named in the publication by the maps that it has seen."""

    def __init__(self) -> None:
        super().__init__()
        steps = {"54": 2 * WIDTH, "543": 3 * WIDTH, "5432": 4 * WIDTH, "54321": 5 * WIDTH}
        self.racb = nn.ModuleDict({name: ResidualChannelAttention(channels) for name, channels in steps.items()})
        self.conv = nn.ModuleDict(
            {name: DilatedNeck(channels, WIDTH, _DILATIONS) for name, channels in steps.items() if name != "54321"}
        )
        self.clc_layer = DilatedNeck(steps["54321"], 1, _DILATIONS)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Five maps `[N, 32, h, w]`, fine to coarse, to three results of steps and logits `[N, 1, 96, 96]`."""
        *finer, coarsest = maps
        seen = [coarsest]  # every one enlarged to the map at hand
        results = []
        for (name, attend), lateral in zip(self.racb.items(), reversed(finer), strict=True):
            joined = [enlarge(one, lateral.shape[2] // one.shape[2]) for one in seen]
            attended = attend(torch.cat([*joined, lateral], dim=1))
            result = self.conv[name](attended) if name in self.conv else self.clc_layer(attended)
            seen.append(result)
            results.append(result)
        return results


class Lgvt(SalientNetwork):
    """The network; see the module's docstring. What nothing calls, a quarter of the published parameters, is left out.

    Both forms are the same.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.encoder = SwinEncoder(last_stage=True)
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH))
            for channels in CHANNELS
        )
        self.noise_conv = nn.Conv2d(WIDTH + self.latent_width, WIDTH, 1)
        self.sal_dec = Decoder()

    def segment(self, frames: Tensor, latent: Tensor) -> SalientStages:
        """As `SalientNetwork.segment` says."""
        encoded = self.encoder(frames)
        reduced = [reduce(one) for reduce, one in zip(self.reduce, encoded, strict=True)]
        coarsest = self.noise_conv(append_latent(reduced[-1], latent))
        decoded = self.sal_dec([*reduced[:-1], coarsest])
        return SalientStages(encoded, reduced, coarsest, decoded, enlarge(decoded[-1], 4))


class LatentPrior(nn.Module):
    """The energy of a latent, and draws from the prior that it tilts; its file is the publication's `*_ebm.pth`."""

    def __init__(self) -> None:
        super().__init__()
        self.ebm = nn.Sequential(nn.Linear(32, 60), nn.GELU(), nn.Linear(60, 60), nn.GELU(), nn.Linear(60, 1))

    def forward(self, latent: Tensor) -> Tensor:
        """Latents `[N, 32]` to energies `[N]`."""
        energy: Tensor = self.ebm(latent)
        return energy[:, 0]

    def draw(self, start: Tensor, noise: Tensor) -> Tensor:
        """Langevin steps of size 0.4 from a start `[N, 32]`, one for each noise of `[steps, N, 32]`: `[N, 32]`.

        The release starts from normally distributed values and makes five steps.
        """
        latent = start
        for random in noise:
            with torch.enable_grad():
                latent = latent.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self(latent).sum(), latent)
            latent = (latent - 0.5 * 0.4**2 * (slope + latent) + 0.4 * random).detach()
        return latent
