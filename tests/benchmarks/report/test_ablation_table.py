"""The tables of trained networks, from rows that are made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.ablations import ABLATIONS, main, recipe_of
from avsbg.benchmarks.report.ablation_table import ANEW, render, render_pair
from fixtures import ROOT, avsbench

KEPT = ROOT / "model/trained/s4-small"
SCORES = {"whole": 0.6, "without-audio": 0.4, "without-motion": 0.55, "without-bg": 0.6}


def _row(ablation: str, seed: int, miou: float, **changes: Any) -> dict[str, Any]:
    recipe = recipe_of(ablation, seed).to_dict()
    split = {"clips": 2, "height": 64, "width": 64}
    return {
        "ablation": ablation,
        "seed": seed,
        "miou": miou,
        "f_score": miou + 0.1,
        "clips": [[miou - 0.1, miou], [miou + 0.1, miou + 0.2]] * 2,
        "categories": [
            "tiger",
            "owl",
            "owl",
            "tiger",
        ],  # of a tiger the test split has a photo of its own, of an owl it has not
        "selected": {"epoch": 1, "miou": 0.7, "f_score": 0.8},
        "steps": 10,
        "processor_seconds": 120.0,
        "test": split,
        "run": {"recipe": recipe, "data": {"train": split}, "audio_accuracy": 0.9},
        "environment": {"commit": "0123456789abcdef"},
        **changes,
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _all(**changes: Any) -> list[dict[str, Any]]:
    return [_row(name, seed, score + 0.01 * seed, **changes) for name, score in SCORES.items() for seed in (0, 1, 2)]


def test_each_row_is_compared_with_the_whole_of_its_seed(tmp_path):
    assert set(SCORES) == set(ABLATIONS)
    table = render(_write(tmp_path / "rows.jsonl", _all()))
    lines = {cells[1].strip(): cells for cells in (line.split("|")[1:-1] for line in table.splitlines()[2:6])}
    # Over 0, 0.01 and 0.02: the deviation is 0.01, Student's factor for two degrees of freedom 4.303.
    assert lines["without sound"][2].strip() == "0.410 [0.385, 0.435]"
    assert lines["without sound"][3].strip() == "+0.200 [+0.200, +0.200]"
    assert lines["without bidirectional generation"][3].strip() == "+0.000 [+0.000, +0.000]"
    assert lines["AVS-BG, whole"][3].strip() == ""
    assert "3 seeds" in table
    assert "2 minutes of one core each" in table


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "holds no rows"),
        (_all()[1:], "lacks whole with seed 0"),
        (_all(environment={"commit": "0123-dirty"}), "uncommitted changes"),
        ([*_all()[1:], _row("whole", 0, 0.6, test={"clips": 3})], "different recipes or data"),
    ],
)
def test_rows_that_make_no_table(tmp_path, rows, reason):
    with pytest.raises(BenchmarkError, match=reason):
        render(_write(tmp_path / "rows.jsonl", rows))


def test_the_pair_is_told_apart_by_what_training_saw(tmp_path):
    first = [_row(name, 0, SCORES[name]) for name in ("whole", "without-audio")]
    again = [{**row, "processor_seconds": None} for row in first]
    table = render_pair(_write(tmp_path / "rows.jsonl", [*first, *again]))
    gained = [line.rsplit("|", 2)[1].strip() for line in table.splitlines() if line.startswith("| 2, photo")]
    assert len(gained) == 4  # seen and never seen, two scores each
    assert all(cell.startswith("+0.200") for cell in gained)
    assert "2 minutes of one core" in table
    with pytest.raises(BenchmarkError, match="one row of whole and one of without-audio"):
        render_pair(_write(tmp_path / "rows.jsonl", first[:1]))


def _also(miou: float, *, commit: str = "0123456789abcdef", sounding: str = "owl") -> dict[str, Any]:
    categories = ["tiger", "tiger", "owl", sounding]
    return {
        "clips": [[miou, miou]] * 4,
        "categories": categories,
        "test": _row("whole", 0, 0.5)["test"],
        "environment": {"commit": commit},
    }


def test_the_pair_is_compared_on_other_clips_too(tmp_path):
    pair = [_row("whole", 0, 0.6, also=_also(0.5)), _row("without-audio", 0, 0.4, also=_also(0.4))]
    rows = [line for line in render_pair(_write(tmp_path / "rows.jsonl", pair)).splitlines() if ANEW in line]
    assert len(rows) == 2
    assert all(row.startswith("| 4, ") and "| +0.100 [" in row for row in rows)


@pytest.mark.parametrize(("tigers", "named"), [(0.1, "tiger (4 clips)."), (0.9, "no class.")])
def test_classes_that_the_sound_misleads_on_both_sets_are_named(tmp_path, tigers, named):
    clips = [[tigers, tigers], [0.9, 0.9], [0.9, 0.9], [tigers, tigers]]  # an owl gains here, and loses on the others
    pair = [_row("whole", 0, 0.6, clips=clips, also=_also(0.5)), _row("without-audio", 0, 0.4, also=_also(0.6))]
    assert render_pair(_write(tmp_path / "rows.jsonl", pair)).endswith(f"on both sets of clips, by mIoU: {named}")


OWN = {key: _row("whole", 0, 0.5)[key] for key in ("clips", "categories", "test", "environment")}


@pytest.mark.parametrize(
    ("whole", "without", "reason"),
    [
        ({"also": _also(0.5)}, {}, "lacks both runs' scores"),
        ({"also": _also(0.5)}, {"also": _also(0.4, sounding="tiger")}, "the same other clips"),
        ({"also": OWN}, {"also": OWN}, "the same other clips"),
        ({"also": _also(0.5)}, {"also": _also(0.4, commit="0123-dirty")}, "uncommitted changes"),
    ],
)
def test_scores_on_other_clips_that_make_no_row(tmp_path, whole, without, reason):
    rows = [_row("whole", 0, 0.6, **whole), _row("without-audio", 0, 0.4, **without)]
    with pytest.raises(BenchmarkError, match=reason):
        render_pair(_write(tmp_path / "rows.jsonl", rows))


def test_finished_runs_are_scored_on_other_clips(tmp_path):
    finished = tmp_path / "out" / "whole-0"
    shutil.copytree(KEPT, finished)
    (finished / "scores.json").write_text(json.dumps(_row("whole", 0, 0.6)))
    data = avsbench.write_dataset(tmp_path / "other", "s4", size=64, counts={"train": 1, "val": 1, "test": 2})
    main(data, tmp_path / "out", "random", seed=[0], only=["whole"], also=data)
    (row,) = map(json.loads, (tmp_path / "out" / "rows.jsonl").read_text().splitlines())
    also = row.pop("also")
    assert row == _row("whole", 0, 0.6)
    assert also["test"]["clips"] == len(also["clips"]) == len(also["categories"]) == 2
    assert also["miou"] == pytest.approx(np.mean([miou for miou, _ in also["clips"]]))
    assert also["environment"]["packages"]
