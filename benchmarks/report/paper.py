"""The figures of the paper (arXiv 2308.08288, Table 7): measured by its authors on an NVIDIA V100."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DEVICE = "V100"


@dataclass(frozen=True)
class PaperFigures:
    """Parameters in millions, and milliseconds per clip of 5 frames of 224 x 224."""

    parameters: float
    latency: float


TABLE_7 = {"avs-bg": PaperFigures(85.50, 27.48), "avsbench": PaperFigures(101.32, 43.55)}


def paper_figures(variant: Mapping[str, str | bool | int]) -> PaperFigures | None:
    """The figures of a variant record, whichever form computes it; None where the paper states none."""
    from avsbg.model import VARIANTS

    for name, figures in TABLE_7.items():
        if {**variant, "form": "efficient"} == VARIANTS[name].to_dict():
            return figures
    return None
