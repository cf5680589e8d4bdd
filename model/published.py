"""The key names of the published checkpoints, and the tensors in them that nothing uses.

Our modules have names of their own; a published key is derived from ours by the substitutions below, first match only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from avsbg.model.avs_bg import WIDTH as AVS_BG_WIDTH
from avsbg.model.avsbench import WIDTH as AVSBENCH_WIDTH
from avsbg.model.avsbench import AvsBench

_Rules = tuple[tuple[str, str], ...]

_CONV_NORM_UNIT: _Rules = ((r"\.first\.", ".ConvBNReLU1."), (r"\.second\.", ".ConvBNReLU2."))
_VISUAL_TO_AUDIO: _Rules = (
    (r"^visual_to_audio\.mask_encoder\.(\d)\.", r"mask_encoder.\1.conv."),
    (r"^visual_to_audio\.project\.", "maksed_visual_to_audio."),  # the published key is misspelt
)
_PVT: _Rules = (
    (r"^patch_embed\.", "patch_embed1."),
    (r"^stages\.(\d)\.downsample\.", "patch_embed{0+1}."),
    (r"^stages\.(\d)\.blocks\.", "block{0+1}."),
    (r"^stages\.(\d)\.norm\.", "norm{0+1}."),
)
_AVSBENCH_RESNET: _Rules = ((r"^layer([34])\.", r"layer\1_1."),)
_NETWORK: dict[str, _Rules] = {
    "avs-bg": (
        (r"^neck\.(\d)\.(\d)\.", r"neck.conv_list.\1.reduce.\2."),
        (r"^fusion\.(\d)\.(conv\d)\.", r"fusion_modules.\1.\2.conv."),
        (r"^correlation\.", "corr_atten."),
        (r"^decoder\.(\d)\.lateral\.", r"decoder.short_connect_with_decode_module.\1.resConfUnit1."),
        (r"^decoder\.(\d)\.refine\.", r"decoder.short_connect_with_decode_module.\1.resConfUnit2."),
        (r"^head\.", "decoder.head_up_2.output_conv."),
        *_VISUAL_TO_AUDIO,
    ),
    "avsbench": (
        (r"^neck\.(\d)\.branches\.", "conv{0+1}.conv2d_list."),
        (r"^tpavi\.(\d)\.align\.", "tpavi_b{0+1}.align_channel."),
        (r"^tpavi\.(\d)\.norm\.", "tpavi_b{0+1}.norm_layer."),
        (r"^tpavi\.(\d)\.out\.", "tpavi_b{0+1}.W_z.0."),
        (r"^tpavi\.(\d)\.out_norm\.", "tpavi_b{0+1}.W_z.1."),
        (r"^tpavi\.(\d)\.", "tpavi_b{0+1}."),
        (r"^decoder\.(\d)\.lateral\.", "path{4-0}.resConfUnit1."),
        (r"^decoder\.(\d)\.refine\.", "path{4-0}.resConfUnit2."),
        (r"^head\.", "output_conv."),
        *_VISUAL_TO_AUDIO,
    ),
}


def _rewrite(key: str, rules: _Rules) -> str:
    """Apply the first rule that matches; `{0+1}` and `{4-0}` in a replacement count from the first group's number."""
    for pattern, replacement in rules:
        match = re.match(pattern, key) if pattern.startswith("^") else re.search(pattern, key)
        if match:
            template = replacement
            if "{" in template:
                stage = int(match[1])
                template = template.replace("{0+1}", str(stage + 1)).replace("{4-0}", str(4 - stage))
            return key[: match.start()] + match.expand(template) + key[match.end() :]
    return key


def _encoder_key(key: str, network: str, encoder: str) -> str:
    prefix = "encoder." if network == "avs-bg" else ("resnet." if encoder == "resnet50" else "encoder_backbone.")
    if encoder == "resnet50":
        return prefix + (key if network == "avs-bg" else _rewrite(key, _AVSBENCH_RESNET))
    return prefix + _rewrite(key, _PVT).replace("mlp.dwconv.", "mlp.dwconv.dwconv.")


def published_key(key: str, *, network: str, encoder: str) -> str:
    """The published name of one key of our state dict (VGGish's keys are its release's own)."""
    if key.startswith("encoder.network."):
        return _encoder_key(key.removeprefix("encoder.network."), network, encoder)
    renamed = _rewrite(key, _NETWORK[network])
    return _rewrite(renamed, _CONV_NORM_UNIT) if network == "avs-bg" else renamed


def published_keys(network: nn.Module) -> dict[str, str]:
    """Our state dict's keys to the published ones, in our order."""
    variant = getattr(network, "variant", None)
    if variant is None:  # VGGish
        return {key: key for key in network.state_dict()}
    return {key: published_key(key, network=variant.network, encoder=variant.encoder) for key in network.state_dict()}


# Keys that a checkpoint may hold although the network at hand has no place for them: the published models carry
# parameters that are never used, and an ablated variant lacks parts of the full one.
_NEVER_USED = {
    "avs-bg": (r"audio_neck\.", r"decoder\.short_connect_with_decode_module\.0\.resConfUnit1\."),
    "avsbench": (r"path4\.resConfUnit1\.", r"resnet\.layer[34]_2\."),
    "vggish": (r"pproc\.",),
}
_SWITCHED_OFF = {
    "audio": (r"fusion_modules\.", r"tpavi_b\d\.align_channel\."),
    "motion": (r"corr_atten\.",),
    "bidirectional": (r"mask_encoder\.", r"maksed_visual_to_audio\."),
}


def ignored_keys(network: nn.Module, keys: Iterable[str]) -> list[str]:
    """Those of the published `keys` that this network knows of and does not need."""
    variant = getattr(network, "variant", None)
    patterns = list(_NEVER_USED["vggish" if variant is None else variant.network])
    if variant is not None:
        for switch, of_switch in _SWITCHED_OFF.items():
            if not getattr(variant, switch):
                patterns += of_switch
    return [key for key in keys if any(re.match(pattern, key) for pattern in patterns)]


def never_used_parameters(network: nn.Module) -> int:
    """Count the parameters of the published model of this variant that nothing ever uses (0 for VGGish).

    The published totals include them: AVS-BG's `audio_neck` and the first residual unit of the first decoder block,
    AVSBench's first residual unit likewise and, with ResNet-50, a second copy of layers 3 and 4.
    """
    variant = getattr(network, "variant", None)
    if variant is None:
        return 0
    if variant.network == "avs-bg":
        convolution_and_norm = 9 * AVS_BG_WIDTH**2 + 2 * AVS_BG_WIDTH
        return AVS_BG_WIDTH**2 + AVS_BG_WIDTH + 2 * convolution_and_norm
    unused = 2 * (9 * AVSBENCH_WIDTH**2 + AVSBENCH_WIDTH)
    assert isinstance(network, AvsBench)
    if variant.encoder == "resnet50":
        layers = (network.encoder.network.get_submodule(name) for name in ("layer3", "layer4"))
        unused += sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    return unused
