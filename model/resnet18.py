"""ResNet-18 as sound localisation uses it: its last layer keeps stride 16, without dilation."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 512


class ResNet18(nn.Module):
    """The convolutional part of torchvision's ResNet-18 with `layer4` at stride 1, under torchvision's key names."""

    def __init__(self, channels: int, stem: str) -> None:
        """Take maps of that many channels; the first convolution has the name that the publication gives it."""
        super().__init__()
        import timm

        network = timm.create_model("resnet18", in_chans=channels, num_classes=0)
        for convolution in (network.layer4[0].conv1, network.layer4[0].downsample[0]):
            convolution.stride = (1, 1)
        self._stem = stem
        self.add_module(stem, network.conv1)
        self.bn1 = network.bn1
        self.layer1, self.layer2, self.layer3, self.layer4 = (getattr(network, f"layer{n}") for n in range(1, 5))

    def forward(self, maps: Tensor) -> list[Tensor]:
        """`[N, channels, H, W]` to five maps: after the first pool and after each layer, the last `[N, 512, h, w]`."""
        stem = F.relu(self.bn1(self.get_submodule(self._stem)(maps)))
        stages = [F.max_pool2d(stem, 3, stride=2, padding=1)]
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            stages.append(layer(stages[-1]))
        return stages
