"""Rounds added to an earlier run: more pairs of the same cases, and nothing of another machine or network."""

from __future__ import annotations

import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.cases import list_cases
from avsbg.benchmarks.measure.resume import check_resumable
from avsbg.benchmarks.measure.runner import compare
from avsbg.benchmarks.measure.sampling import Settings
from avsbg.benchmarks.measure.workloads import Workload
from avsbg.benchmarks.results.schema import Metric
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.progress import Progress
from avsbg.runtime.bundle import Bundle
from fixtures.rows import ENVIRONMENT, make_row, make_second_row


def test_samples_follow_the_earlier_ones(embedding: Bundle, progress: Progress) -> None:
    cases = list_cases([embedding.path], ["onnxruntime:plain", "onnxruntime:function"], threads=1, clips=1)
    settings = Settings(warmup=1, samples=4, seconds=0.0, memory=False)
    first = compare(cases, Workload(), settings, progress)
    peak = {"peak_memory": Metric(unit="B", value=5)}
    first = [row.model_copy(update={"metrics": row.metrics | peak}) for row in first]
    second = compare(cases, Workload(), Settings(warmup=1, samples=3, seconds=0.0), progress, earlier=first)
    third = compare(cases, Workload(), settings, progress, earlier=second)
    for before, after in zip(first, third, strict=True):
        for name in ("latency", "processor_time"):
            assert len(after[name].samples) == 4 + 3 + 4 and after[name].samples[:4] == before[name].samples
        assert after["peak_memory"].value == 5  # not measured again
        ratio = paired_ratio(after["latency"].samples, third[0]["latency"].samples)
        assert (after["ratio"].value, after["ratio"].low) == (ratio.value, ratio.low)
        assert [one["rounds"] for one in after.run.settings["earlier"]] == [4, 3]
    assert third[0].run == third[1].run  # one run, so that they make one table


def test_another_case_machine_or_commit_is_refused() -> None:
    rows = [make_row(), make_second_row()]
    labels, cases = [row.label for row in rows], {row.label: row.case for row in rows}
    check_resumable(rows, labels, cases, ENVIRONMENT)
    check_resumable(rows, labels, cases, ENVIRONMENT.model_copy(update={"load_average": (9.0, 9.0, 9.0)}))
    with pytest.raises(BenchmarkError, match="earlier run is of avs-bg"):
        check_resumable(rows, labels[::-1], cases, ENVIRONMENT)
    with pytest.raises(BenchmarkError, match="computed something else"):
        check_resumable(rows, labels, {**cases, labels[1]: {**rows[1].case, "frames": 4}}, ENVIRONMENT)
    for name, value in (("processor", "another"), ("commit", "1" * 40), ("packages", {"torch": "3"})):
        with pytest.raises(BenchmarkError, match=f"another {name}"):
            check_resumable(rows, labels, cases, ENVIRONMENT.model_copy(update={name: value}))
