"""The key names of the published checkpoints, and the tensors in them that nothing uses.

Our modules have names of their own; a published key is derived from ours by the rules in a network's record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import nn

from avsbg.model.record import CheckpointLayout, Rules
from avsbg.model.registry import NETWORKS

# Of timm's encoders, whatever the network.
_ENCODER: Rules = (
    (r"^patch_embed\.", "patch_embed1."),
    (r"^stages\.(\d)\.downsample\.", "patch_embed{0+1}."),
    (r"^stages\.(\d)\.blocks\.", "block{0+1}."),
    (r"^stages\.(\d)\.norm\.", "norm{0+1}."),
)

T = TypeVar("T")


# Its own file holds post-processing that is not used; AVSegFormer's holds VGGish beside the network.
_VGGISH = CheckpointLayout(
    aliases=((r"^vggish\.", ""),), never_used=(r"pproc\.", r"backbone\.", r"head\.", r"audio_proj\.")
)


def layout_of(network: nn.Module) -> CheckpointLayout:
    """The layout of the published checkpoints of a network, or of VGGish."""
    variant = getattr(network, "variant", None)
    return _VGGISH if variant is None else NETWORKS[variant.network].checkpoint


def _rewrite(key: str, rules: Rules) -> str:
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


def _by_encoder(values: Mapping[str, T], encoder: str, default: T) -> T:
    return values.get(encoder, values.get("", default))


def published_key(key: str, *, network: str, encoder: str) -> str:
    """The published name of one key of our state dict."""
    layout = NETWORKS[network].checkpoint
    inner = key.removeprefix("encoder.network.")
    if inner != key and layout.encoder_prefix:
        renamed = _rewrite(inner, (*layout.encoder_renames, *_ENCODER)).replace("mlp.dwconv.", "mlp.dwconv.dwconv.")
        return _by_encoder(layout.encoder_prefix, encoder, "") + renamed
    return _rewrite(_rewrite(key, layout.renames), layout.unit_renames)


def published_keys(network: nn.Module) -> dict[str, str]:
    """Our state dict's keys to the published ones, in our order."""
    variant = getattr(network, "variant", None)
    if variant is None:  # VGGish
        return {key: key for key in network.state_dict()}
    return {key: published_key(key, network=variant.network, encoder=variant.encoder) for key in network.state_dict()}


# Keys of parts that an ablated variant lacks.
_SWITCHED_OFF = {
    "audio": (r"fusion_modules\.", r"tpavi_b\d\.align_channel\."),
    "motion": (r"corr_atten\.",),
    "bidirectional": (r"mask_encoder\.", r"maksed_visual_to_audio\."),
}


def ignored_keys(network: nn.Module, keys: Iterable[str]) -> list[str]:
    """Those of the published `keys` that this network knows of and does not need."""
    variant = getattr(network, "variant", None)
    patterns = list(layout_of(network).never_used)
    if variant is not None:
        for switch, of_switch in _SWITCHED_OFF.items():
            if not getattr(variant, switch):
                patterns += of_switch
    return [key for key in keys if any(re.match(pattern, key) for pattern in patterns)]


def canonical_key(network: nn.Module, key: str) -> str:
    """The published name of a tensor that a checkpoint holds under more than one."""
    return _rewrite(key, layout_of(network).aliases)


def never_used_parameters(network: nn.Module) -> int:
    """Count the parameters of the published model of this variant that no mask depends on (0 for VGGish).

    The published totals include them.
    """
    variant = getattr(network, "variant", None)
    if variant is None:
        return 0
    layout = layout_of(network)
    return _by_encoder(layout.never_used_parameters, variant.encoder, 0) + layout.never_used_per_class * variant.classes
