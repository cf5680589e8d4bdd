"""What the records of a manifest have in common: strictness, and the types of their fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def _check_path(path: str) -> str:
    parts = path.split("/")
    if "\\" in path or "\0" in path or ":" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r} is not a relative POSIX path inside the bundle")
    return path


RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_check_path)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Dimension = Annotated[int, Field(ge=0, le=2**40)] | Annotated[str, StringConstraints(min_length=1, max_length=64)]
DType = Literal["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8"]


class Record(BaseModel):
    """A record that refuses unknown fields, is never changed, and holds only numbers that JSON has."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
