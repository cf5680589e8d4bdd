"""Names of a bundle's graphs: which part of the network, with which operators, in which precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision

ROLES = ("clip", "encode", "decode")
_PLAIN = "plain"


@dataclass(frozen=True)
class GraphName:
    """The name of a graph, written `ROLE[.plain][.PRECISION]`: `clip`, `encode.fp16`, `decode.plain.int8`."""

    role: str  # `clip` (a whole clip), or a stream's `encode` (a new frame) or `decode` (a pair of frames)
    is_plain: bool = False  # whether our operator is written out in standard ones; only of graphs that held it
    precision: Precision = "fp32"

    @classmethod
    def parse(cls, text: str) -> GraphName:
        """Take a name apart. One that is not written so is a role as a whole: a manifest may list any name."""
        role, *details = text.split(".")
        is_plain = details[:1] == [_PLAIN]
        rest = details[1:] if is_plain else details
        if not rest:
            return cls(role, is_plain)
        if len(rest) == 1 and rest[0] in PRECISIONS and rest[0] != "fp32":
            return cls(role, is_plain, rest[0])
        return cls(text)

    def __str__(self) -> str:
        parts = [self.role, _PLAIN if self.is_plain else "", "" if self.precision == "fp32" else self.precision]
        return ".".join(filter(None, parts))

    @property
    def file(self) -> str:
        """The file in which `avsbg export` and `avsbg convert` write the graph."""
        return f"{self}.onnx"

    def plain(self) -> GraphName:
        """The copy of standard operators only."""
        return replace(self, is_plain=True)

    def converted(self, precision: Precision) -> GraphName:
        """The same graph in another precision."""
        return replace(self, precision=precision)
