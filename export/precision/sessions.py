"""Running a rewritten graph that lies in no bundle: throw-away files, one session, inputs in, arrays out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from avsbg.runtime.backends.onnxruntime.providers import UNFIT_FOR_FP8

Arrays = dict[str, NDArray[Any]]


class Session:
    """A model in ONNX Runtime, on the CPU."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] = ("logits",)) -> Arrays:
        """The outputs wanted."""
        return dict(zip(outputs, self._session.run(list(outputs), dict(inputs)), strict=True))


@contextmanager
def throw_away_session(model: ir.Model, *, threads: int | None = None) -> Iterator[Session]:
    """A session of a model, whose files are gone at the end of the block."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="avsbg-") as folder:
        path = Path(folder) / "model.onnx"
        # Not in one file: protobuf ends at 2 GB.
        ir.save(model, path, external_data="weights.bin")
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=UNFIT_FOR_FP8
        )
        yield Session(session)
