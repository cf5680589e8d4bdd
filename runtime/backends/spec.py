"""What executes a graph, as users name it: `BACKEND[:FORM][:PRECISION]`, e.g. `onnxruntime:native:int8`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError

SYNTAX = "BACKEND[:FORM][:PRECISION]"


@dataclass(frozen=True)
class BackendSpec:
    """A backend, and how it is to execute the graph.

    Attributes:
        backend: its name.
        form: how it computes the correlation; which forms there are is the backend's own. None for its default.
        precision: of the graph's products; None for the graph's own, which is fp32 unless it says otherwise.
    """

    backend: str
    form: str | None = None
    precision: Precision | None = None

    @classmethod
    def parse(cls, text: str) -> BackendSpec:
        """Read a target; form and precision may come in either order, since no form is named like a precision.

        Raises:
            BackendError: a part is empty, or there is more than one form or precision.
        """
        backend, *details = text.split(":")
        precisions = [detail for detail in details if detail in PRECISIONS]
        forms = [detail for detail in details if detail not in PRECISIONS]
        if "" in (backend, *details) or len(precisions) > 1 or len(forms) > 1:
            raise BackendError(
                f"{text!r} is not a target; a target is {SYNTAX}.",
                f"For instance onnxruntime, onnxruntime:native, torch:published. Precisions: {', '.join(PRECISIONS)}.",
            )
        return cls(backend, forms[0] if forms else None, precisions[0] if precisions else None)

    def __str__(self) -> str:
        return ":".join(part for part in (self.backend, self.form, self.precision) if part)

    def options(self) -> dict[str, Any]:
        """What `backends.create` takes besides the backend's name."""
        return {"operator": self.form, "precision": self.precision}
