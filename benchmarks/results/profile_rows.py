"""Time by stage of a network, one JSON line per contender; the models here are the format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from avsbg.atomic import atomic_file
from avsbg.benchmarks.errors import BenchmarkError

PROFILE = "profile.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LayerRow(_Record):
    """A layer, kernel or module, and the stage that it belongs to."""

    name: str
    stage: str
    kind: str = Field(description="operator type, as the engine names it; empty if it does not say")
    seconds: float = Field(ge=0, description="per clip")


class ProfileRow(_Record):
    """Where a contender's time goes, in seconds per clip, taken from the run of median length."""

    label: str
    variant: dict[str, str | bool]
    backend: dict[str, JsonValue]
    source: str = Field(description="what measured, e.g. the profiler of ONNX Runtime")
    clips: int = Field(ge=1)
    runs: int = Field(ge=1)
    stages: dict[str, float] = Field(description="in the order of execution; together the sum of all layers")
    slowest: tuple[LayerRow, ...] = Field(description="the layers that take most, slowest first")


def write_profiles(path: Path, rows: Iterable[ProfileRow]) -> None:
    """Write rows as JSON Lines; `path` appears when it is complete."""
    with atomic_file(path) as temporary:
        temporary.write_text("".join(f"{row.model_dump_json()}\n" for row in rows), encoding="utf-8")


def read_profiles(path: Path) -> list[ProfileRow]:
    """Read and validate rows; none if there is no such file.

    Raises:
        BenchmarkError: a line is not a valid row.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [ProfileRow.model_validate_json(line) for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BenchmarkError(f"{path} is no profile: {error}", "Make one with `avsbg bench --profile`.") from error
