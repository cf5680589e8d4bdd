"""The tables of trained networks, from rows that are made up."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran, Run, read_rows, write_rows
from fixtures import ROOT, avsbench
from fixtures.rows import ENVIRONMENT
from tools.ablations import ABLATIONS, SCORES, main, recipe_of
from tools.training_tables import OTHER_CLIPS, ablation_table, accuracy_table, audio_gain_table

KEPT = ROOT / "model/trained/s4-small"
MIOUS = {"full": 0.6, "without-audio": 0.4, "without-motion": 0.55, "without-bg": 0.6}
SPLIT = {"clips": 2, "height": 64, "width": 64}
# Of a tiger the test split has a photo of its own, of an owl it has not.
CATEGORIES = ["tiger", "owl", "owl", "tiger"]


def _row(ablation: str, seed: int, miou: float, samples: list[float] | None = None, **case: Any) -> Measurement:
    samples = samples or [miou - 0.1, miou + 0.1] * 2
    return Measurement(
        kind="ablation",
        case={"ablation": ablation, "seed": seed, "clips": "test", "data": SPLIT, "categories": CATEGORIES, **case},
        metrics={
            "miou": Metric(value=miou, samples=tuple(samples)),
            "f_score": Metric(value=miou + 0.1, samples=tuple(one + 0.1 for one in samples)),
            "steps": Metric(value=10),
            "validation_miou": Metric(value=0.7),
            "processor_time": Metric(unit="s", value=120.0),
            "audio_accuracy": Metric(value=0.9),
        },
        run=Run(settings={"recipe": recipe_of(ablation, seed).to_dict(), "data": {"train": SPLIT}}),
        environment=ENVIRONMENT,
    )


def _other(ablation: str, miou: float, sounding: str = "owl", **case: Any) -> Measurement:
    """The scores of a run on other clips."""
    categories = ["tiger", "tiger", "owl", sounding]
    return _row(ablation, 0, miou, [miou] * 4, **{"clips": "other", "categories": categories, **case})


def _pair(*others: Measurement, samples: list[float] | None = None) -> list[Measurement]:
    return [_row("full", 0, 0.6, samples), _row("without-audio", 0, 0.4), *others]


def _all() -> list[Measurement]:
    return [_row(name, seed, score + 0.01 * seed) for name, score in MIOUS.items() for seed in (0, 1, 2)]


def test_each_row_is_compared_with_the_full_network_of_its_seed():
    assert set(MIOUS) == set(ABLATIONS)
    table = ablation_table(_all())
    lines = {cells[1].strip(): cells for cells in (line.split("|")[1:-1] for line in table.splitlines()[2:6])}
    # Over 0, 0.01 and 0.02: the deviation is 0.01, Student's factor for two degrees of freedom 4.303.
    assert lines["without sound"][2].strip() == "0.410 [0.385, 0.435]"
    assert lines["without sound"][3].strip() == "+0.200 [+0.200, +0.200]"
    assert lines["without bidirectional generation"][3].strip() == "+0.000 [+0.000, +0.000]"
    assert lines["AVS-BG, full"][3].strip() == ""
    assert "3 seeds" in table
    assert "2 minutes of one core each" in table


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (_all()[1:], "full with seed 0 is missing"),
        ([*_all()[1:], _row("full", 0, 0.6, data={"clips": 3})], "different recipes or data"),
    ],
)
def test_rows_that_make_no_table(rows, reason):
    with pytest.raises(BenchmarkError, match=reason):
        ablation_table(rows)


def test_the_pair_is_told_apart_by_what_training_saw():
    again = [row.model_copy(update={"metrics": dict(row.metrics)}) for row in _pair()]
    for row in again:
        del row.metrics["processor_time"]
    table = audio_gain_table([*_pair(), *again])
    gained = [line.rsplit("|", 2)[1].strip() for line in table.splitlines() if line.startswith("| 2, photo")]
    assert len(gained) == 4  # seen and never seen, two scores each
    assert all(cell.startswith("+0.200") for cell in gained)
    assert "2 minutes of one core" in table
    with pytest.raises(BenchmarkError, match="one row of full and one of without-audio"):
        audio_gain_table(_pair()[:1])


def test_the_pair_is_compared_on_other_clips_too():
    table = audio_gain_table(_pair(_other("full", 0.5), _other("without-audio", 0.4)))
    rows = [line for line in table.splitlines() if OTHER_CLIPS in line]
    assert len(rows) == 2
    assert all(row.startswith("| 4, ") and "| +0.100 [" in row for row in rows)


@pytest.mark.parametrize(("tigers", "named"), [(0.1, "tiger (4 clips)."), (0.9, "no class.")])
def test_classes_that_the_sound_misleads_on_both_sets_are_named(tigers, named):
    # An owl gains here, and loses on the others.
    pair = _pair(_other("full", 0.5), _other("without-audio", 0.6), samples=[tigers, 0.9, 0.9, tigers])
    assert audio_gain_table(pair).endswith(f"on both sets of clips, by mIoU: {named}")


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([_other("full", 0.5)], "both runs need scores"),
        ([_other("full", 0.5), _other("without-audio", 0.4, sounding="tiger")], "the same other clips"),
        ([_other(name, 0.5, categories=CATEGORIES) for name in ("full", "without-audio")], "the same other clips"),
    ],
)
def test_scores_on_other_clips_that_make_no_row(others, reason):
    with pytest.raises(BenchmarkError, match=reason):
        audio_gain_table(_pair(*others))


def test_finished_runs_are_scored_on_other_clips(tmp_path):
    finished = tmp_path / "out" / "full-0"
    shutil.copytree(KEPT, finished)
    write_rows(finished / SCORES, [_row("full", 0, 0.6)])
    data = avsbench.write_dataset(tmp_path / "other", "s4", size=64, counts={"train": 1, "val": 1, "test": 2})
    main(data, tmp_path / "out", "random", seed=[0], only=["full"], also=data)
    row, other = read_rows(tmp_path / "out" / "rows.jsonl", "ablation")
    assert row == _row("full", 0, 0.6)
    assert (other.case["clips"], other.case["ablation"], other.case["seed"]) == ("other", "full", 0)
    assert other.case["data"]["clips"] == len(other["miou"].samples) == len(other.case["categories"]) == 2
    assert other["miou"].value == pytest.approx(np.mean(other["miou"].samples))
    assert other.environment is not None and other.environment.packages


def test_backends_are_compared_with_the_first_clip_by_clip():
    def row(target: str, change: float, manifest: str = "0") -> Measurement:
        metrics = {name: Metric(samples=tuple(one + change for one in (0.5, 0.6))) for name in ("miou", "f_score")}
        data = {"task": "s4", "split": "test", "height": 64, "width": 64}
        case = {"target": target, "streamed": False, "data": data}
        ran = Ran(files={"manifest.json": manifest * 64})
        return Measurement(kind="accuracy", case=case, metrics=metrics, ran=ran, environment=ENVIRONMENT)

    lines = accuracy_table([row("torch", 0.0), row("onnxruntime", 0.0), row("openvino", -0.1)]).splitlines()
    assert "the same to four digits, every clip" in lines[3]
    assert "-0.1000 [-0.1000, -0.1000]" in lines[4]
    with pytest.raises(BenchmarkError, match="several bundles"):
        accuracy_table([row("torch", 0.0), row("torch", 0.0, manifest="1")])
