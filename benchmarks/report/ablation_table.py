"""The ablations' rows as the table of docs/training.md, in the shape of the paper's Tables 3, 4 and 5.

python -m avsbg.benchmarks.report.ablation_table out/ablations/rows.jsonl
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.errors import AvsbgError

WHOLE, WITHOUT_AUDIO = "whole", "without-audio"
ANEW = "composed anew, with another seed"
# Row -> the paper's table, and what is trained.
_TITLES = {
    WHOLE: ("3, 4, 5", "AVS-BG, whole"),
    WITHOUT_AUDIO: ("3", "without sound"),
    "without-motion": ("4", "without motion"),
    "without-bg": ("5", "without bidirectional generation"),
}
_CONFIDENCE = 0.95


def render(path: Path) -> str:
    """Committed rows as Markdown.

    Raises:
        BenchmarkError: there are no rows, rows were measured with uncommitted changes or differ in more than the
            ablation and the seed, or an ablation lacks a seed that another has.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    _check(path, rows)
    scores = {(row["ablation"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    lines = [
        "| paper's table | trained | mIoU | less than whole, same seed | F-score | less than whole, same seed |",
        "|---|---|---|---|---|---|",
    ]
    for name, (tables, title) in _TITLES.items():
        cells = [tables, title]
        for score in ("miou", "f_score"):
            ours = [scores[name, seed][score] for seed in seeds]
            cells.append(_interval(ours))
            lost = [scores[WHOLE, seed][score] - one for seed, one in zip(seeds, ours, strict=True)]
            cells.append("" if name == WHOLE else _interval(lost, sign="+"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _notes(rows, seeds)])


def render_pair(path: Path) -> str:
    """The network that is kept and the one without sound, one seed each, as Markdown; intervals are over the clips.

    A run that was scored again has a later row, which counts; only the first knows how long the training took. Runs
    that were scored on other clips too (`--also`) have rows of the table for them.

    Raises:
        BenchmarkError: as `render`, or there are other rows.
    """
    scorings = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = {row["ablation"]: row for row in scorings}
    seconds = [row["processor_seconds"] for row in scorings if row["processor_seconds"] is not None]
    if set(rows) != {WHOLE, WITHOUT_AUDIO}:
        raise BenchmarkError(f"{path} must hold one row of {WHOLE} and one of {WITHOUT_AUDIO}, not {', '.join(rows)}.")
    _check_commits(path, list(rows.values()))
    whole, without = rows[WHOLE], rows[WITHOUT_AUDIO]
    recipe, data, test = whole["run"]["recipe"], whole["run"]["data"], whole["test"]
    if test != without["test"] or _shared(whole) != _shared(without):
        raise BenchmarkError(f"{path} mixes runs of different recipes or data.", "Train both the same way.")
    lines = [
        "| clips | | with sound | without sound | gained by sound, same clips |",
        "|---|---|---|---|---|",
    ]
    for title, chosen in _groups(whole["categories"]):
        lines += _gained(title, *([row["clips"][clip] for clip in chosen] for row in (whole, without)))
    misled = ""
    anew = [row["also"] for row in (whole, without) if "also" in row]
    if anew:
        _check_commits(path, [{"ablation": "clips composed anew", **one} for one in anew])
        # The names of composed clips are the same in all data sets, their categories are not.
        heard, unheard, own = ([row["test"], row["categories"]] for row in (anew[0], anew[-1], whole))
        if len(anew) < 2 or heard != unheard or heard == own:
            raise BenchmarkError(f"{path} lacks both runs' scores on the same other clips.", "Score both with --also.")
        lines += _gained(ANEW, *(one["clips"] for one in anew))
        misled = " " + _misled([(whole, without), (anew[0], anew[1])])
    chosen_on, other = whole["selected"]["miou"], without["selected"]["miou"]
    heard = whole["run"]["audio_accuracy"]
    lines += [
        "",
        f"{test['height']} x {test['width']}, seed {whole['seed']}, {whole['steps']} steps of {recipe['batch']} clips, "
        f"{data['train']['clips']} training clips, {_minutes(seconds)} of one core; mean over the "
        f"clips with its {_CONFIDENCE:.0%} bootstrap interval. The validation split, which chose the "
        f"epoch, has backgrounds of its own, but the training split's photos and recordings: mIoU {chosen_on:.3f} with "
        f"sound and {other:.3f} without there. The audio encoder tells {heard:.1%} of its patches. Commit "
        f"{str(whole['environment']['commit'])[:12]}.{misled}",
    ]
    return "\n".join(lines)


def _gained(title: str, ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> list[str]:
    """A row for each score of the same clips with sound and without: `[clips][mIoU, F-score]`."""
    lines = []
    for index, score in enumerate(("mIoU", "F-score")):
        heard, unheard = ([clip[index] for clip in clips] for clips in (ours, theirs))
        gained = [one - other for one, other in zip(heard, unheard, strict=True)]
        cells = (f"{len(ours)}, {title}", score, _over_clips(heard), _over_clips(unheard), _over_clips(gained, "+"))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _misled(sets: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """The classes whose mean mIoU is lower with the sound than without on every one of the sets of clips."""
    counts: Counter[str] = Counter()
    worse = []
    for heard, unheard in sets:
        gained = defaultdict(list)
        for category, one, other in zip(heard["categories"], heard["clips"], unheard["clips"], strict=True):
            gained[category].append(one[0] - other[0])
        counts.update({category: len(values) for category, values in gained.items()})
        worse.append({category for category, values in gained.items() if sum(values) < 0})
    named = [f"{category} ({counts[category]} clips)" for category in sorted(set.intersection(*worse))]
    return f"Worse with the sound on both sets of clips, by mIoU: {', '.join(named) or 'no class'}."


def _groups(categories: Sequence[str]) -> list[tuple[str, list[int]]]:
    """All clips, and those whose sounding object has a photo that no training clip shows, and the others."""
    from avsbg.model.training.stamps_library import SOUNDING

    own = {files.name.replace(" ", "_") for files in SOUNDING if files.test_photo is not None}
    new = [index for index, category in enumerate(categories) if category in own]
    known = [index for index, category in enumerate(categories) if category not in own]
    everything = list(range(len(categories)))
    return [("the test split", everything), ("photo seen in training", known), ("photo never seen", new)]


def _over_clips(values: Sequence[float], sign: str = "") -> str:
    from avsbg.benchmarks.results.statistics import mean_interval

    found = mean_interval(values, confidence=_CONFIDENCE)
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _check(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        raise BenchmarkError(f"{path} holds no rows.", "Make them with python -m avsbg.benchmarks.measure.ablations.")
    _check_commits(path, rows)
    same = {json.dumps([_shared(row), row["test"]], sort_keys=True) for row in rows}
    if len(same) > 1:
        raise BenchmarkError(f"{path} mixes runs of different recipes or data.", "Train all of them the same way.")
    trained = {(row["ablation"], row["seed"]) for row in rows}
    for name in _TITLES:
        for seed in {row["seed"] for row in rows}:
            if (name, seed) not in trained:
                raise BenchmarkError(f"{path} lacks {name} with seed {seed}.", "Train it, and collect the rows again.")


def _check_commits(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        if str(row["environment"]["commit"]).endswith("-dirty"):
            raise BenchmarkError(
                f"{path} has a row of {row['ablation']} that was made with uncommitted changes.",
                "Commit, and make it again.",
            )


def _shared(row: dict[str, Any]) -> dict[str, Any]:
    """What all runs have in common: the recipe but for its seed and the switches."""
    recipe = {key: value for key, value in row["run"]["recipe"].items() if key not in ("seed", "variant")}
    return {**recipe, "encoder": row["run"]["recipe"]["variant"]["encoder"], "data": row["run"]["data"]}


def _interval(values: Sequence[float], sign: str = "") -> str:
    """The mean with Student's confidence interval over the seeds."""
    import numpy as np
    from scipy.stats import sem, t

    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:{sign}.3f}"
    low, high = (
        t.interval(_CONFIDENCE, len(values) - 1, loc=mean, scale=sem(values)) if np.ptp(values) else (mean, mean)
    )
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _notes(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> str:
    recipe, test, train = rows[0]["run"]["recipe"], rows[0]["test"], rows[0]["run"]["data"]["train"]
    seconds = [row["processor_seconds"] for row in rows if row["processor_seconds"] is not None]
    spent = f"; {_minutes(seconds)} of one core each, the audio encoder's training included" if seconds else ""
    commits = sorted({str(row["environment"]["commit"])[:12] for row in rows})
    accuracies = [row["run"]["audio_accuracy"] for row in rows if row["run"].get("audio_accuracy") is not None]
    heard = f" The audio encoder tells {min(accuracies):.1%} of the validation split's patches or more." * bool(
        accuracies
    )
    return (
        f"Mean over {len(seeds)} seeds with Student's {_CONFIDENCE:.0%} interval over the seeds, {test['clips']} test "
        f"clips of {test['height']} x {test['width']}, trained on {train['clips']} clips for {recipe['epochs']} epochs "
        f"({rows[0]['steps']} steps of {recipe['batch']} clips){spent}.{heard} Commit {', '.join(commits)}."
    )


def _minutes(seconds: Sequence[float]) -> str:
    low, high = (round(of(seconds) / 60) for of in (min, max))
    return f"{low} minutes" if low == high else f"{low} to {high} minutes"


def main(
    rows: Annotated[Path, typer.Argument(help="rows.jsonl of `python -m avsbg.benchmarks.measure.ablations`.")],
) -> None:
    """Print the table of docs/training.md."""
    typer.echo(render(rows))


if __name__ == "__main__":
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
