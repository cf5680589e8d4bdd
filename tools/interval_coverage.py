"""Coverage of a paired ratio's interval on simulated machines: `python -m tools.interval_coverage`.

Three cases are called in turn as `interleave` calls them, on a machine that is disturbed in a known way; so the true
ratio is known, and how often its interval holds it is counted. Nothing is measured: the same seed gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from avsbg.benchmarks.measure.sampling import interleave
from avsbg.benchmarks.report.tables import Columns, markdown
from avsbg.benchmarks.results.schema import Measurement, Metric, write_rows
from avsbg.benchmarks.results.trust import judge_ratio
from tools import Output, command

# Seconds of the cases on an idle machine; the second's ratio to the first is judged.
SECONDS = (1.0, 0.4, 0.9)
RATIO = SECONDS[1] / SECONDS[0]
ROUNDS = (10, 20, 40)
NOISE = 0.02  # standard deviation of a call's logarithm on an idle machine


class Machine:
    """A clock that calls move on, by their work and by what disturbs the machine meanwhile."""

    def __init__(self, disturbance: str, rounds: int, seed: int) -> None:
        self.now, self._disturbance = 0.0, disturbance
        self._rng = np.random.default_rng(seed)
        self._end = rounds * sum(SECONDS)
        self._switch, self._is_busy = 0.0, bool(self._rng.random() < 0.5)

    def nanoseconds(self) -> int:
        """The time, as `time.perf_counter_ns` gives it."""
        return int(1e9 * self.now)

    def call(self, case: int) -> None:
        """Do a case's work."""
        work = SECONDS[case] * self._rng.lognormal(0.0, NOISE)
        if self._disturbance == BURSTS and self._rng.random() < 0.2:
            work *= self._rng.uniform(1.3, 2.0)
        if self._disturbance == ONE_CASE and case == 1 and self.now > self._end / 2:
            work *= 1.3
        if self._disturbance in _BUSY:
            self._share(work, *_BUSY[self._disturbance])
        else:
            self.now += work * (1 + 0.3 * self.now / self._end if self._disturbance == DRIFT else 1.0)

    def _share(self, work: float, busy: float, idle: float) -> None:
        """Compute at 0.55 of the speed while another program runs, which comes and goes after so many seconds."""
        while work > 0:
            if self.now >= self._switch:
                self._is_busy = not self._is_busy
                self._switch = self.now + self._rng.exponential(busy if self._is_busy else idle)
            speed = 0.55 if self._is_busy else 1.0
            step = min(work / speed, self._switch - self.now)
            self.now, work = self.now + step, work - max(step, 1e-9) * speed


QUIET, BURSTS, DRIFT = "none", "one call in five takes 1.3 to 2 times as long", "all calls become slower by 30 %"
NEIGHBOUR, HALVES = "a program runs for 3 s in 8", "a program runs for half a minute in two"
ONE_CASE = "in the second half one case alone takes 1.3 times as long"
_BUSY = {NEIGHBOUR: (3.0, 5.0), HALVES: (30.0, 30.0)}
DISTURBANCES = (QUIET, BURSTS, DRIFT, NEIGHBOUR, HALVES, ONE_CASE)


def _call(machine: Machine, case: int) -> Callable[[], None]:
    return lambda: machine.call(case)


def simulate(disturbance: str, rounds: int, trials: int) -> Measurement:
    """Judge the ratio of so many runs on as many machines: how often its interval holds, and what was said of it."""
    found = []
    for seed in range(trials):
        machine = Machine(disturbance, rounds, seed)
        calls = {str(case): _call(machine, case) for case in range(len(SECONDS))}
        times = interleave(calls, warmup=0, samples=rounds, clock=machine.nanoseconds)
        found.append(judge_ratio(times["1"], times["0"]))
    told = [judged.interval for judged in found if judged.trust != "contradictory"]
    holds = [one.low is not None and one.high is not None and one.low <= RATIO <= one.high for one in told]
    shares = {kind: sum(judged.trust == kind for judged in found) / trials for kind in ("firm", "rough")}
    metrics = {"told": Metric(value=len(told) / trials), "firm": Metric(value=shares["firm"])}
    if told:
        metrics["covered"] = Metric(value=sum(holds) / len(told))
        metrics["width"] = Metric(value=float(np.median([one.width or 0.0 for one in told])))
    case = {"disturbance": disturbance, "rounds": rounds, "trials": trials}
    return Measurement(kind="interval-coverage", label=disturbance, case=case, metrics=metrics)


def coverage_table(rows: Sequence[Measurement]) -> str:
    """The coverage by disturbance and rounds in Markdown."""

    def percent(metric: str, form: str = ".1%") -> Callable[[Measurement], str]:
        return lambda row: "-" if (value := row.value(metric)) is None else f"{value:{form}}"

    columns: Columns[Measurement] = [
        ("disturbance", lambda row: row.case["disturbance"]),
        ("rounds", lambda row: row.case["rounds"]),
        ("interval holds\nthe true ratio", percent("covered")),
        ("its width,\nmedian", percent("width")),
        ("ratio shown", percent("told", ".0%")),
        ("of it firm", percent("firm", ".0%")),
    ]
    return f"{markdown(rows, columns)}\n\n{rows[0].case['trials']} simulated runs each; nothing here was measured."


@command
def main(
    output: Output = Path("benchmarks/results/coverage.jsonl"),
    trials: Annotated[int, typer.Option(min=1, help="Simulated runs of each row.")] = 400,
) -> None:
    """Simulate disturbed machines, and count how often the interval of a paired ratio holds the true one."""
    rows = [simulate(disturbance, rounds, trials) for disturbance in DISTURBANCES for rounds in ROUNDS]
    write_rows(output, rows)
    typer.echo(coverage_table(rows))
