"""Records of quantisations in a manifest: the clips of the calibration, the ranges found, the layers left out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from avsbg.runtime.bundle.record_types import Count, Record, Sha256

Range = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class CalibrationFileRecord(Record):
    """A file that calibration clips were taken from."""

    name: str = Field(min_length=1, max_length=1024, description="below the folder that was given")
    sha256: Sha256


class CalibrationRecord(Record):
    """The clips that ranges were read from."""

    source: Literal["videos", "avsbench", "vectors"] = Field(
        description="a folder of videos, a split of AVSBench, or the bundle's own synthetic test vectors"
    )
    files: tuple[CalibrationFileRecord, ...] = Field(min_length=1, max_length=4096)
    clips: Count
    seed: int | None = Field(default=None, description="of the choice among the folder's clips")


class LayerGroupRecord(Record):
    """A group of products that stay or go together, and what quantising this group alone costs."""

    products: Count
    logit_error: float = Field(ge=0, description="rms difference of the logits, divided by their standard deviation")
    miou: Share = Field(description="between the masks with this group alone quantised and those in float32")
    left_out: bool


class TrialRecord(Record):
    """One trial of the rule that leaves groups out: the costliest ones stay out, all others are quantised together."""

    groups: Count = Field(description="how many were left out")
    products: Count = Field(description="how many products these are")
    miou: Share = Field(description="what the masks reached on the clips that the rule was measured on")


class QuantisationRecord(Record):
    """Quantisation of the products of the bundle's graphs, which share it, since they share the products."""

    calibration: CalibrationRecord
    method: Literal["mse", "max"] = Field(description="how the range of an activation follows from its histogram")
    between: Literal["fp32", "fp16"] = Field(description="the type of what lies between quantised products")
    groups: dict[str, LayerGroupRecord] = Field(description="the measured rule: what each group costs")
    min_miou: Share = Field(
        validation_alias="least_miou",
        serialization_alias="least_miou",
        description="what the rule had to reach on the clips it was measured on",
    )
    miou: Share = Field(description="what it reached there")
    measured_clips: Count | None = Field(
        validation_alias="judged_clips",
        serialization_alias="judged_clips",
        default=None,
        description="how many clips these are: all test vectors, and calibration clips",
    )
    trials: tuple[TrialRecord, ...] = Field(
        default=(), max_length=256, description="numbers of groups that were left out on trial, in that order"
    )
    left_out: tuple[str, ...] = Field(default=(), description="products that stay in the type between")
    not_quantised: dict[str, str] = Field(
        default={}, description="products of the bundle's graphs without a range -> why; they stay in the type between"
    )
    ranges: dict[str, Range] = Field(min_length=1, description="product -> largest magnitude of its input")
