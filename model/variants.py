"""The variant record: which network, with which encoder and which of the paper's ablation switches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from avsbg.errors import AvsbgError

NETWORKS = ("avs-bg", "avsbench")
ENCODERS = (*(f"pvt_v2_b{n}" for n in range(6)), "resnet50", "tf_efficientnet_lite0")
FORMS = ("efficient", "published")


class VariantError(AvsbgError, ValueError):
    """A variant was asked for that does not exist or whose switches contradict each other."""


@dataclass(frozen=True)
class Variant:
    """A network and its switches; the complete recipe of its architecture, stored in every bundle.

    Attributes:
        network: `avs-bg` (arXiv 2308.08288) or `avsbench` (the TPAVI baseline it is compared with).
        encoder: the visual encoder, by timm's name.
        audio: whether the sound takes part. Without it, `avs-bg` skips the fusion's gate, and `avsbench` attends from
            the visual features to themselves (its visual-visual mode).
        motion: whether the correlation attention between neighbouring frames takes part (`avs-bg` only; Table 4).
        bidirectional: whether the visual-to-audio projection is there (training only; Table 5). It adds parameters
            but nothing to inference.
        form: `efficient` computes without the correlation volume and without TPAVI's N x N matrix; `published`
            materialises both as the released code does. Same function, same weights.
    """

    network: str = "avs-bg"
    encoder: str = "pvt_v2_b5"
    audio: bool = True
    motion: bool = True
    bidirectional: bool = True
    form: str = "efficient"

    def __post_init__(self) -> None:
        for name, choices in (("network", NETWORKS), ("encoder", ENCODERS), ("form", FORMS)):
            if getattr(self, name) not in choices:
                raise VariantError(f"unknown {name} {getattr(self, name)!r}.", f"Choose one of: {', '.join(choices)}.")
        for name in ("audio", "motion", "bidirectional"):
            if not isinstance(getattr(self, name), bool):
                raise VariantError(f"the switch {name!r} is either true or false, not {getattr(self, name)!r}.")
        if self.network == "avsbench" and self.motion:
            raise VariantError("avsbench has no correlation attention.", "Set motion to false.")

    def to_dict(self) -> dict[str, str | bool]:
        """The record as plain values, as a bundle's manifest stores it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Variant:
        """The reverse of `to_dict`; a `VariantError` for an unknown field, a missing one, or a value out of choice."""
        names = {field.name for field in fields(cls)}
        if set(record) != names:
            wanted, given = ", ".join(sorted(names)), ", ".join(sorted(record))
            raise VariantError(f"a variant record has the fields {wanted}, not {given}.")
        return cls(**record)


_AVS_BG = Variant()
_AVSBENCH = Variant(network="avsbench", motion=False, bidirectional=False)

# The rows of the paper's tables by name: 3 (audio), 4 (motion), 5 (bidirectional generation), with both encoders.
_PVT_VARIANTS = {
    "avs-bg": _AVS_BG,
    "avs-bg-without-audio": replace(_AVS_BG, audio=False, bidirectional=False),
    "avs-bg-without-motion": replace(_AVS_BG, motion=False),
    "avs-bg-without-bg": replace(_AVS_BG, bidirectional=False),
    "avs-bg-without-motion-and-bg": replace(_AVS_BG, motion=False, bidirectional=False),
    "avsbench": _AVSBENCH,
    "avsbench-without-audio": replace(_AVSBENCH, audio=False),
    "avsbench-with-bg": replace(_AVSBENCH, bidirectional=True),
}
VARIANTS: dict[str, Variant] = {
    **_PVT_VARIANTS,
    **{f"{name}-resnet50": replace(variant, encoder="resnet50") for name, variant in _PVT_VARIANTS.items()},
}


def named_variant(name: str, **switches: Any) -> Variant:
    """The variant of that name, with single switches replaced; a `VariantError` where a name does not exist."""
    if name not in VARIANTS:
        raise VariantError(f"unknown network or variant {name!r}.", f"Choose one of: {', '.join(VARIANTS)}.")
    unknown = set(switches) - {field.name for field in fields(Variant)} | ({"network"} & set(switches))
    if unknown:
        valid = ", ".join(field.name for field in fields(Variant) if field.name != "network")
        raise VariantError(f"unknown switch {', '.join(sorted(unknown))} of {name!r}.", f"The switches are: {valid}.")
    return replace(VARIANTS[name], **switches)
