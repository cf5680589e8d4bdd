"""The options of an engine build, checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from avsbg.errors import AvsbgError
from avsbg.runtime.backends.spec import OperatorImplementation
from avsbg.runtime.bundle.graph_name import REST, ROLES
from avsbg.runtime.bundle.precision import PRECISIONS, validate_rest
from avsbg.runtime.bundle.record_types import Precision

Backend = Literal["tensorrt", "tensorrt-rtx"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)
OPERATORS = (OperatorImplementation.PLUGIN, OperatorImplementation.PLAIN)
# More branches at once than any of the networks has.
MOST_AUX_STREAMS = 64
# A terabyte: more memory than any GPU has, and few enough bytes for TensorRT's numbers.
MOST_WORKSPACE_MB = 2**20


class BuildError(AvsbgError):
    """An engine cannot be built as asked for, or is not what was asked for."""


@dataclass(frozen=True)
class EngineRequest:
    """The options of a build."""

    backend: Backend
    precision: Precision  # of the products; `avsbg.export.precision.rules` has what stays float32
    operator: OperatorImplementation = OperatorImplementation.PLUGIN
    clips: tuple[int, int, int] = (1, 1, 4)  # in a batch: the smallest, the optimal and the largest number
    compute_capabilities: tuple[int, ...] = ()  # 86 for 8.6; empty for the GPU of this machine
    workspace_mb: int | None = None  # the most that a layer may use; None for TensorRT's own limit
    version_compatible: bool = False  # also runs on later TensorRT versions, 10 on 11 too
    strip_weights: bool = False  # leave out what a refit from the ONNX file restores
    timing_cache: Path | None = None  # earlier measurements of tactics, read if it exists, and written
    aux_streams: int | None = None  # CUDA streams for branches; None: the builder's choice; 0 takes the least memory
    graph: str = "clip"  # or a stream's `encode` or `decode`
    rest: Precision | None = None  # of what int8 and fp8 do not quantise: fp16, or None for fp32

    def __post_init__(self) -> None:
        for flag, value, choices in (
            ("--backend", self.backend, BACKENDS),
            ("--precision", self.precision, tuple(PRECISIONS)),
            ("--implementation", self.operator, OPERATORS),
            ("--graph", self.graph, ROLES),
        ):
            if value not in choices:
                raise BuildError(f"{flag} {value} does not exist.", f"Choose one of: {', '.join(choices)}.")
        # Commands give a word, which the loop has checked.
        object.__setattr__(self, "operator", OperatorImplementation(self.operator))
        if problem := validate_rest(self.precision, self.rest):
            raise BuildError(problem)
        object.__setattr__(self, "rest", None if self.rest == "fp32" else self.rest)
        smallest, optimal, largest = self.clips
        if not 1 <= smallest <= optimal <= largest:
            raise BuildError(
                f"--batch-range {smallest} {optimal} {largest} is no range.", "Give 1 <= MIN <= OPT <= MAX, e.g. 1 1 4."
            )
        if self.workspace_mb is not None and not 1 <= self.workspace_mb <= MOST_WORKSPACE_MB:
            raise BuildError(f"--workspace must lie between 1 and {MOST_WORKSPACE_MB} MB, not {self.workspace_mb}.")
        if self.aux_streams is not None and not 0 <= self.aux_streams <= MOST_AUX_STREAMS:
            raise BuildError(f"--aux-streams must lie between 0 and {MOST_AUX_STREAMS}, not {self.aux_streams}.")
        if repeated := len(self.compute_capabilities) - len(set(self.compute_capabilities)):
            raise BuildError(f"--compute-capability repeats {repeated} of its values.")

    def engine_name(self, compute_capabilities: tuple[int, ...]) -> str:
        """The name of the engine in the bundle: what tells it from the bundle's other engines."""
        devices = "-".join(f"sm{number}" for number in compute_capabilities)
        batch = "-".join(map(str, self.clips))
        streams = "" if self.aux_streams is None else f".aux{self.aux_streams}"
        rest = "" if self.rest is None else f".{REST}{self.rest}"
        return f"{self.graph}{rest}.{self.precision}.{self.operator}.{self.backend}.{devices}.clips{batch}{streams}"
