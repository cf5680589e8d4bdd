"""Names of a bundle's graphs: which part of the network, with which operators, in which precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision

STREAM_ROLES = ("encode", "decode")
ROLES = ("clip", *STREAM_ROLES)
_PLAIN = "plain"
REST = "rest-"


@dataclass(frozen=True)
class GraphName:
    """The name of a graph, written `ROLE[.plain][.rest-REST][.PRECISION]`.

    For instance `clip`, `encode.fp16`, `decode.plain.int8`, `clip.rest-fp16.int8`.
    """

    role: str  # `clip` (a whole clip), or a stream's `encode` (a new frame) or `decode` (a pair of frames)
    is_plain: bool = False  # whether our operator is written out in standard ones; only of graphs that held it
    precision: Precision = "fp32"
    rest: Precision | None = None  # the type of what a quantised graph does not quantise; None for fp32

    @classmethod
    def parse(cls, text: str) -> GraphName:
        """Take a name apart. One that is not written so is a role as a whole: a manifest may list any name."""
        role, *details = text.split(".")
        is_plain = details[:1] == [_PLAIN]
        *between, precision = [*(details[1:] if is_plain else details)] or ["fp32"]
        parsed = cls(role, is_plain, precision, between[0].removeprefix(REST) if between else None)
        known = {parsed.precision, parsed.rest or "fp32"} <= PRECISIONS.keys()
        return parsed if known and str(parsed) == text else cls(text)

    def __str__(self) -> str:
        rest = f"{REST}{self.rest}" if self.rest else ""
        parts = [self.role, _PLAIN if self.is_plain else "", rest, "" if self.precision == "fp32" else self.precision]
        return ".".join(filter(None, parts))

    @property
    def is_of_stream(self) -> bool:
        """Whether it is one of a stream's graphs."""
        return self.role in STREAM_ROLES

    @property
    def file(self) -> str:
        """The file in which `avsbg export` and `avsbg quantize` write the graph."""
        return f"{self}.onnx"

    def plain(self) -> GraphName:
        """The copy of standard operators only."""
        return replace(self, is_plain=True)

    def converted(self, precision: Precision, rest: Precision | None = None) -> GraphName:
        """The same graph in another precision."""
        return replace(self, precision=precision, rest=rest)
