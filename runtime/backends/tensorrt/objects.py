"""Objects that TensorRT makes, or an error in words: its Python raises or returns None, by where it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avsbg.errors import AvsbgError
from avsbg.runtime.backends.tensorrt.logger import describe_errors
from avsbg.runtime.errors import BackendError

_HINT = "`avsbg doctor` shows whether the GPU and its driver can be used. Close other programs if its memory is short."


def create_object(
    log: Any, what: str, create: Callable[[], Any], *, hint: str = _HINT, error: type[AvsbgError] = BackendError
) -> Any:
    """Make an object of TensorRT, or raise an `error` with what TensorRT logged (`message_log`) meanwhile.

    Where CUDA cannot start, constructors raise the TypeError by which pybind11 reports a null pointer, and methods
    return None; some raise a RuntimeError. Any other TypeError is of a call that is wrong, and is raised as it is.
    """
    cause = None
    with log.collect() as messages:
        try:
            made = create()
        except (RuntimeError, TypeError) as raised:
            if isinstance(raised, TypeError) and "nullptr" not in str(raised):
                raise
            made, cause = None, raised
    if made is None:
        # pybind11's text says nothing of the cause.
        reason = str(cause) if isinstance(cause, RuntimeError) else "it gives no reason"
        raise error(f"TensorRT cannot make {what}: {describe_errors(messages, reason)}.", hint) from cause
    return made
