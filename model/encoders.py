"""Visual encoders: timm networks that return four feature maps at strides 4, 8, 16 and 32.

To add one: give it an entry in `_ENCODERS` and its name in the entries of `registry.py`; if a publication used it, add
its key names to `published.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

STAGE_STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class _EncoderSpec:
    channels: tuple[int, int, int, int]
    indices: tuple[int, int, int, int]  # which of timm's intermediates are the four stages
    options: dict[str, float]


# Stochastic depth 0.1, rising linearly over the blocks, as both publications train PVT-v2 (inactive in eval mode).
_PVT_OPTIONS = {"drop_path_rate": 0.1}
_ENCODERS = {
    "pvt_v2_b0": _EncoderSpec((32, 64, 160, 256), (0, 1, 2, 3), _PVT_OPTIONS),
    **{f"pvt_v2_b{n}": _EncoderSpec((64, 128, 320, 512), (0, 1, 2, 3), _PVT_OPTIONS) for n in range(1, 6)},
    "resnet50": _EncoderSpec((256, 512, 1024, 2048), (1, 2, 3, 4), {}),
    "tf_efficientnet_lite0": _EncoderSpec((24, 40, 112, 320), (1, 2, 3, 4), {}),  # no publication's: for small devices
}


class Encoder(nn.Module):
    """A timm network without its classifier.

    Attributes:
        channels: of the four stages.
    """

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        """Build encoder `name`; with `pretrained`, with timm's ImageNet weights (fetched by timm)."""
        super().__init__()
        import timm

        spec = _ENCODERS[name]
        self.channels = spec.channels
        self._indices = list(spec.indices)
        self.network = timm.create_model(name, pretrained=pretrained, num_classes=0, **spec.options)
        if name == "tf_efficientnet_lite0":  # the others have nothing after the last stage
            self.network.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Normalised frames `[N, 3, H, W]`, H and W multiples of 32, to four maps `[N, C_i, H / s_i, W / s_i]`."""
        stages: list[Tensor] = self.network.forward_intermediates(
            frames, indices=self._indices, intermediates_only=True
        )
        return stages
