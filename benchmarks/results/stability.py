"""Stability of a row: limits, and what of a row lies beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avsbg.benchmarks.results.statistics import drift, summarise
from avsbg.runtime.verify.verify import DEFAULT_MIN_MIOU, TOLERANCE


@dataclass(frozen=True)
class Limits:
    """Beyond any of these, a row is unstable.

    Attributes:
        samples: at least so many (trtexec's minimum).
        variation: coefficient of variation. trtexec warns at 0.025, on a GPU with fixed clocks; a CPU that serves an
            operating system besides has a longer tail, and what is published of it is the median.
        drift: of the last quarter's median against the first quarter's, either way: a machine that heats up, or one
            that was still warming up.
        others: share of all cores that other processes used while sampling.
        logit_difference: to PyTorch on the bundle's vectors, as `avsbg verify` allows. The speed of another function
            is no result.
        miou: of the masks with PyTorch's, instead of that, in a precision that is meant to differ.
    """

    samples: int = 10
    variation: float = 0.10
    drift: float = 0.05
    others: float = 0.10
    logit_difference: float = TOLERANCE
    miou: float = DEFAULT_MIN_MIOU


LIMITS = Limits()


def find_problems(
    samples: Sequence[float],
    *,
    others: float,
    logit_difference: float | None = None,
    miou: float | None = None,
) -> tuple[str, ...]:
    """List why a row with these samples is unstable, one sentence each; nothing if it is stable.

    Args:
        samples: seconds per call, in the order in which they were taken.
        others: the share of all cores that other processes used meanwhile.
        logit_difference: None where it is not known.
        miou: of a reduced precision, whose logits are not held to the limit then; None in fp32.
    """
    limits = LIMITS
    if len(samples) < limits.samples:
        return (f"{len(samples)} samples; at least {limits.samples} are needed",)
    problems = []
    variation, moved = summarise(samples).variation, drift(samples)
    if variation > limits.variation:
        problems.append(f"coefficient of variation {variation:.1%}, above {limits.variation:.1%}")
    if abs(moved) > limits.drift:
        problems.append(f"the last quarter is {moved:+.1%} off the first, beyond {limits.drift:.1%}")
    if others > limits.others:
        problems.append(f"other processes used {others:.1%} of the processor, above {limits.others:.1%}")
    if miou is not None:
        if not miou >= limits.miou:  # NaN fails
            problems.append(f"masks have a mean IoU of {miou:.4f} with PyTorch's, below {limits.miou:g}")
    elif logit_difference is not None and logit_difference > limits.logit_difference:
        problems.append(f"logits differ from PyTorch by {logit_difference:.2g}, above {limits.logit_difference:.2g}")
    return tuple(problems)
