"""Stability of a row: limits, and what of a row lies beyond them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avsbg.benchmarks.results.statistics import drift, summarise
from avsbg.runtime.verify.verify import DEFAULT_MIN_MIOU, TOLERANCE


@dataclass(frozen=True)
class Limits:
    """Beyond any of these, a row is unstable."""

    samples: int = 10  # at least so many (trtexec's minimum)
    variation: float = 0.10  # coefficient of variation; trtexec warns at 0.025, but a CPU has a longer tail
    drift: float = 0.05  # of the last quarter's median against the first's, either way: heating up, or warming up
    others: float = 0.10  # share of all cores that other processes used while sampling
    logit_difference: float = TOLERANCE  # to PyTorch on the bundle's vectors, as `avsbg verify` allows
    miou: float = DEFAULT_MIN_MIOU  # of the masks with PyTorch's, instead of that, in a precision meant to differ
    interval: float = 0.10  # of a paired ratio, in shares of it: a firm ratio's is no wider
    ratio_drift: float = 0.05  # of a paired ratio, of its last quarter's median against the first's, either way
    half: int = 4  # pairs at least in each half, for the halves to contradict each other


LIMITS = Limits()


def find_problems(
    samples: Sequence[float], *, others: float, logit_difference: float | None = None, miou: float | None = None
) -> tuple[str, ...]:
    """List why a row with these samples is unstable, one sentence each; nothing if it is stable.

    Samples are seconds per call in the order taken, `others` is the share of all cores that other processes used then.
    `miou` is of a reduced precision, whose logits are not held to the limit then; None in fp32.
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
    return (*problems, *find_accuracy_problems(logit_difference, miou))


def find_accuracy_problems(logit_difference: float | None, miou: float | None) -> tuple[str, ...]:
    """Say why outputs are not PyTorch's; nothing where they are, or no test vectors tell."""
    limits, problems = LIMITS, []
    if miou is not None:
        if not miou >= limits.miou:  # NaN fails
            problems.append(f"masks have a mean IoU of {miou:.4f} with PyTorch's, below {limits.miou:g}")
    elif logit_difference is not None and logit_difference > limits.logit_difference:
        problems.append(f"logits differ from PyTorch by {logit_difference:.2g}, above {limits.logit_difference:.2g}")
    return tuple(problems)
