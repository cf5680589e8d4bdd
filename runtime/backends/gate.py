"""The gate: what a precision may cost, and the refusal of what costs more."""

from __future__ import annotations

from typing import Any

from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.errors import BackendError


def check_gate(what: str, accuracy: AccuracyRecord | None, *, allow_failed: bool) -> dict[str, Any]:
    """Refuse what did not pass its gate.

    Args:
        what: the engine or graph, as a message names it.
        accuracy: what its precision costs; None where that was not measured.
        allow_failed: run it all the same.

    Returns:
        For the record of a run: `gate` is `passed`, `not measured` or `failed, overridden`, with the figures.

    Raises:
        BackendError: it failed, and `allow_failed` is not set.
    """
    if accuracy is None:
        return {"gate": "not measured"}
    figures: dict[str, Any] = {
        "miou": accuracy.miou,
        "least_miou": accuracy.least_miou,
        "flipped": accuracy.flipped,
        **({"emulated": True} if accuracy.emulated else {}),
        **({"judged_clips": accuracy.judged_on.clips} if accuracy.judged_on else {}),
    }
    if accuracy.passed:
        return {"gate": "passed", **figures}
    how = " (emulated)" if accuracy.emulated else ""
    clips = accuracy.judged_on
    whose = "PyTorch's" if clips is None else f"the float32 graph's on {clips.clips} clips"
    if not allow_failed:
        raise BackendError(
            f"{what} did not pass its gate: its masks have a mean IoU of {accuracy.miou:.4f} with {whose}{how}, and "
            f"{accuracy.least_miou:g} is demanded; {accuracy.flipped:.2%} of the pixels flip.",
            "Use a higher precision, judge it on your own clips (convert --judge), or --force to run it all the same.",
        )
    return {"gate": "failed, overridden", **figures}
