"""Sessions of ONNX Runtime on the CPU for graphs that are looked into or rewritten, outside of any bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from avsbg.runtime.backends.onnxruntime.providers import UNFIT_FOR_FP8

Arrays = dict[str, NDArray[Any]]


class Session:
    """A serialised model, or the file of one, in ONNX Runtime on the CPU.

    `threads` work within an operator; by default as many as ONNX Runtime likes. `weights_folder` is where a serialised
    model's external data lies.
    """

    def __init__(self, model: bytes | str, *, threads: int | None = None, weights_folder: str | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 4  # what fails is raised
        if weights_folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", weights_folder)
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=UNFIT_FOR_FP8
        )

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] = ("logits",)) -> Arrays:
        """The outputs of these names."""
        return dict(zip(outputs, self._session.run(list(outputs), dict(inputs)), strict=True))


@contextmanager
def temporary_session(model: ir.Model, *, threads: int | None = None) -> Iterator[Session]:
    """A session of a model, whose files are gone at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="avsbg-") as folder:
        path = Path(folder) / "model.onnx"
        # Not in one file: protobuf ends at 2 GB.
        ir.save(model, path, external_data="weights.bin")
        yield Session(str(path), threads=threads)


def split_by_size(names: Iterable[str], size: Callable[[str], int], limit: int) -> Iterator[list[str]]:
    """Split tensors, in their order, into parts of at most `limit` bytes; a larger tensor is a part of its own."""
    part: list[str] = []
    held = 0
    for name in names:
        if part and held + size(name) > limit:
            yield part
            part, held = [], 0
        part.append(name)
        held += size(name)
    if part:
        yield part
