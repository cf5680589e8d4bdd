"""The variant record: which network, with which encoder and which of the paper's ablation switches."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from avsbg.errors import AvsbgError
from avsbg.model.record import NetworkRecord
from avsbg.model.registry import NETWORKS

FORMS = ("efficient", "published")
# The parts that switches turn on.
_SWITCHES = {"audio": "use of sound", "motion": "correlation attention", "bidirectional": "visual-to-audio projection"}
# Fields that records older than them lack, and that are not written where they are at their default.
_OPTIONAL = {"classes": 1}


class VariantError(AvsbgError, ValueError):
    """A variant was asked for that does not exist or whose switches contradict each other."""


def find_network(name: str) -> NetworkRecord:
    """The record of the network of that name; a `VariantError` where there is none, or nothing was released."""
    record = NETWORKS.get(name)
    available = ", ".join(name for name, record in NETWORKS.items() if record.module is not None)
    if record is None:
        raise VariantError(f"unknown network {name!r}.", f"Choose one of: {available}.")
    if record.module is None:
        raise VariantError(f"{name} was never released: {record.unreleased}.", f"Choose one of: {available}.")
    return record


@dataclass(frozen=True)
class Variant:
    """A network and its switches; the complete recipe of its architecture, stored in every bundle.

    Attributes:
        network: a name of `avsbg.model.registry.NETWORKS`, whose record says which of the following it has.
        encoder: the visual encoder, by timm's name.
        audio: whether the sound takes part. Without it, `avs-bg` skips the fusion's gate, and `avsbench` attends from
            the visual features to themselves (its visual-visual mode).
        motion: whether the correlation attention between neighbouring frames takes part (`avs-bg` only; Table 4).
        bidirectional: whether the visual-to-audio projection is there (training only; Table 5). It adds parameters
            but nothing to inference.
        form: `efficient` computes without the correlation volume and without TPAVI's N x N matrix; `published`
            materialises both as the released code does. Same function, same weights.
        classes: the number of classes; 1 stands for binary masks.
    """

    network: str = "avs-bg"
    encoder: str = "pvt_v2_b5"
    audio: bool = True
    motion: bool = True
    bidirectional: bool = True
    form: str = "efficient"
    classes: int = 1

    def __post_init__(self) -> None:
        record = find_network(self.network)
        choices = {"encoder": record.encoders, "form": FORMS, "classes": record.classes}
        for name, values in choices.items():
            value = getattr(self, name)
            if value not in values or type(value) is not type(values[0]):  # 1.0 and True are equal to 1
                if name == "classes" and tuple(values) == (1,):
                    raise VariantError(f"{self.network} has no classes, so not {value!r} of them.", "Leave them out.")
                hint = f"Choose one of: {', '.join(sorted(map(str, values)))}."
                raise VariantError(f"unknown {name} {value!r}.", hint)
        for name, part in _SWITCHES.items():
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise VariantError(f"the switch {name!r} is either true or false, not {value!r}.")
            if value and name not in record.switches:
                raise VariantError(f"{self.network} has no {part}.", f"Set {name} to false.")
            if not value and name in record.switches and name not in record.optional:
                raise VariantError(f"{self.network} is not defined without its {part}.", f"Set {name} to true.")

    def to_dict(self) -> dict[str, str | bool | int]:
        """The record as plain values, as a bundle's manifest stores it."""
        return {name: value for name, value in asdict(self).items() if value != _OPTIONAL.get(name)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Variant:
        """The reverse of `to_dict`; a `VariantError` for an unknown field, a missing one, or a value out of choice."""
        names = {field.name for field in fields(cls)}
        if set(record) | set(_OPTIONAL) != names:
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
    """The variant of that name, with single switches replaced; a `VariantError` where a name does not exist.

    A network's name stands for it with its first encoder and everything that it has but what only training uses.
    """
    if name not in VARIANTS and name not in NETWORKS:
        names = dict.fromkeys((*VARIANTS, *NETWORKS))
        raise VariantError(f"unknown network or variant {name!r}.", f"Choose one of: {', '.join(names)}.")
    unknown = set(switches) - {field.name for field in fields(Variant)} | ({"network"} & set(switches))
    if unknown:
        valid = ", ".join(field.name for field in fields(Variant) if field.name != "network")
        raise VariantError(f"unknown switch {', '.join(sorted(unknown))} of {name!r}.", f"The switches are: {valid}.")
    if name in VARIANTS:
        return replace(VARIANTS[name], **switches)
    record = find_network(name)
    on = {switch: switch in record.switches for switch in _SWITCHES}
    default = {"encoder": record.encoders[0], "classes": record.classes[0], **on}
    return Variant(name, **{**default, **switches})
