"""The base of a manifest's records, and the types of their fields."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)
from pydantic_core import CoreSchema, PydanticKnownError

from avsbg.runtime.bundle.precision import PRECISIONS, join_names

# TensorRT counts a tensor's elements in 32 bits, and no clip comes near it.
MAX_ELEMENTS = 2**31 - 1


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


class _PrecisionNames:
    """The names in `PRECISIONS`, as a constraint on a string; `quantized` leaves those without calibration out."""

    def __init__(self, *, quantized: bool = False) -> None:
        self._quantized = quantized

    def names(self) -> list[str]:
        return [name for name, spec in PRECISIONS.items() if spec.quantization is not None or not self._quantized]

    def validate(self, name: str) -> str:
        if name not in self.names():
            raise PydanticKnownError("literal_error", {"expected": join_names([repr(one) for one in self.names()])})
        return name

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": self.names(), **handler(schema)}


_ALL, _QUANTIZED = _PrecisionNames(), _PrecisionNames(quantized=True)
Precision = Annotated[str, AfterValidator(_ALL.validate), _ALL]
QuantizedPrecision = Annotated[str, AfterValidator(_QUANTIZED.validate), _QUANTIZED]


class Record(BaseModel):
    """A record that refuses unknown fields, is never changed, and holds only numbers that JSON has.

    A field may have an alias, its name in the file; Python uses either.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True
    )
    # Fields that came later: they are not written at their default, so that files without them stay as they were.
    ADDED: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        model = type(self)
        left_out = {name for name in self.ADDED if getattr(self, name) == model.model_fields[name].default}
        return {name: value for name, value in fields.items() if name not in left_out}


def validate_shape(shape: Iterable[int | str], most: int = MAX_ELEMENTS) -> str | None:
    """The problem of a shape that a file gives, before anything is allocated for it; None where there is none.

    Names of symbols count as 1; `most` elements are allowed.
    """
    sizes = [size for size in shape if isinstance(size, int)]
    if negative := [size for size in sizes if size < 0]:
        return f"has the dimension {negative[0]}"
    if (elements := math.prod(sizes)) > most:
        return f"has {' x '.join(map(str, sizes))} = {elements} elements, and {most} are the most"
    return None
