"""Tables of docs/accuracy.md: ablations, the small network, and its scores on every backend."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.stats import sem, t

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.report.tables import Columns, markdown, markdown_of, with_interval
from avsbg.benchmarks.results.schema import Measurement
from avsbg.benchmarks.results.statistics import CONFIDENCE, Interval, mean_interval
from avsbg.model.training.stamps_library import SOUNDING

FULL, WITHOUT_AUDIO = "full", "without-audio"
OTHER_CLIPS = "composed anew, with another seed"
# Row -> the paper's table, and what is trained.
_TITLES = {
    FULL: ("3, 4, 5", "AVS-BG, full"),
    WITHOUT_AUDIO: ("3", "without sound"),
    "without-motion": ("4", "without motion"),
    "without-bg": ("5", "without bidirectional generation"),
}
_SCORES = {"miou": "mIoU", "f_score": "F-score"}


def ablation_table(rows: Sequence[Measurement]) -> str:
    """The ablations as Markdown, in the shape of the paper's Tables 3, 4 and 5; intervals are over the seeds.

    A `BenchmarkError` if rows differ in more than ablation and seed, or an ablation lacks a seed that another has.
    """
    _check_alike(rows)
    seeds = sorted({row.case["seed"] for row in rows})
    scores = {(row.case["ablation"], row.case["seed"]): row for row in rows}
    for name in _TITLES:
        if missing := [seed for seed in seeds if (name, seed) not in scores]:
            raise BenchmarkError(f"{name} with seed {missing[0]} is missing.", "Train it, and collect the rows again.")

    def score(name: str, metric: str) -> str:
        return with_interval(_student([scores[name, seed][metric].number for seed in seeds]))

    def loss(name: str, metric: str) -> str:
        losses = [scores[FULL, seed][metric].number - scores[name, seed][metric].number for seed in seeds]
        return "" if name == FULL else with_interval(_student(losses), "+.3f")

    less = "less than the full network, same seed"
    lines = [
        (*title, score(name, "miou"), loss(name, "miou"), score(name, "f_score"), loss(name, "f_score"))
        for name, title in _TITLES.items()
    ]
    table = markdown_of(("paper's table", "trained", "mIoU", less, "F-score", less), lines)
    return f"{table}\n\n{_ablation_notes(rows, seeds)}"


def _check_alike(rows: Sequence[Measurement]) -> None:
    """Refuse rows of different data, or of recipes that differ in more than seed and switches."""
    shared = set()
    for row in rows:
        settings = row.run.settings
        recipe = {key: value for key, value in settings["recipe"].items() if key not in ("seed", "variant")}
        encoder = settings["recipe"]["variant"]["encoder"]
        shared.add(json.dumps([recipe, encoder, settings["data"], row.case["data"]], sort_keys=True))
    if len(shared) > 1:
        raise BenchmarkError("runs of different recipes or data cannot be compared.", "Train all of them the same way.")


def _student(values: Sequence[float]) -> Interval:
    """The mean with Student's confidence interval over the seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    if not np.ptp(values):
        return Interval(mean, mean, mean)
    low, high = t.interval(CONFIDENCE, len(values) - 1, loc=mean, scale=sem(values))
    return Interval(mean, float(low), float(high))


def _ablation_notes(rows: Sequence[Measurement], seeds: Sequence[int]) -> str:
    first = rows[0]
    recipe, test, train = first.run.settings["recipe"], first.case["data"], first.run.settings["data"]["train"]
    spent = classified = ""
    if minutes := _minutes(rows):
        spent = f"; {minutes} of one core each, the audio encoder's training included"
    if accuracies := [row["audio_accuracy"].number for row in rows if "audio_accuracy" in row.metrics]:
        classified = f" The audio encoder classifies {min(accuracies):.1%} of the validation split's patches or more."
    return (
        f"Mean over {len(seeds)} seeds with Student's {CONFIDENCE:.0%} interval over the seeds, {test['clips']} test "
        f"clips of {test['height']} x {test['width']}, trained on {train['clips']} clips for {recipe['epochs']} epochs "
        f"({first['steps'].number} steps of {recipe['batch']} clips){spent}.{classified} "
        f"Commit {', '.join(sorted({row.commit for row in rows}))}."
    )


def _minutes(rows: Sequence[Measurement]) -> str:
    """The processor time of the runs that know it; empty if none does."""
    minutes = [round(row["processor_time"].number / 60) for row in rows if "processor_time" in row.metrics]
    if not minutes:
        return ""
    low, high = min(minutes), max(minutes)
    return f"{low} minutes" if low == high else f"{low} to {high} minutes"


def audio_gain_table(rows: Sequence[Measurement]) -> str:
    """The network that is kept and the one without sound, one seed each, as Markdown; intervals are over the clips.

    A run that was scored again has a later row, which counts; only the first knows how long the training took. Both may
    have been scored on other clips too (`--also`). Raises as `ablation_table`.
    """
    found = {(row.case["ablation"], row.case["clips"]): row for row in rows}
    names = {name for name, _ in found}
    if names != {FULL, WITHOUT_AUDIO}:
        raise BenchmarkError(f"there must be one row of {FULL} and one of {WITHOUT_AUDIO}, not {', '.join(names)}.")
    full, without = found[FULL, "test"], found[WITHOUT_AUDIO, "test"]
    _check_alike([full, without])
    # Classes whose sounding object has a photo of its own in the test split, which no training clip shows.
    new_photos = {files.name.replace(" ", "_") for files in SOUNDING if files.test_photo}
    seen = [category not in new_photos for category in full.case["categories"]]
    groups = {
        "the test split": list(range(len(seen))),
        "photo seen in training": [index for index, known in enumerate(seen) if known],
        "photo never seen": [index for index, known in enumerate(seen) if not known],
    }
    pairs = [(title, full, without, chosen) for title, chosen in groups.items()]
    misled = ""
    if others := [found[name, "other"] for name in (FULL, WITHOUT_AUDIO) if (name, "other") in found]:
        # The names of composed clips are the same in all data sets, their categories are not.
        first, second, own = ((row.case["data"], row.case["categories"]) for row in (others[0], others[-1], full))
        if len(others) < 2 or first != second or first == own:
            raise BenchmarkError("both runs need scores on the same other clips.", "Score both with --also.")
        pairs.append((OTHER_CLIPS, others[0], others[1], list(range(len(others[0]["miou"].samples)))))
        misled = " " + _misled([(full, without), (others[0], others[1])])
    lines = []
    for title, one, other, chosen in pairs:
        for metric, score in _SCORES.items():
            ours, theirs = ([row[metric].samples[clip] for clip in chosen] for row in (one, other))
            gained = with_interval(mean_interval([a - b for a, b in zip(ours, theirs, strict=True)]), "+.3f")
            means = (with_interval(mean_interval(values)) for values in (ours, theirs))
            lines.append((f"{len(chosen)}, {title}", score, *means, gained))
    titles = ("clips", "", "with sound", "without sound", "gained by sound, same clips")
    settings, test = full.run.settings, full.case["data"]
    return (
        f"{markdown_of(titles, lines)}\n\n"
        f"{test['height']} x {test['width']}, seed {full.case['seed']}, {full['steps'].number} steps of "
        f"{settings['recipe']['batch']} clips, {settings['data']['train']['clips']} training clips, {_minutes(rows)} "
        f"of one core; mean over the clips with its {CONFIDENCE:.0%} bootstrap interval. The validation split, which "
        "chose the epoch, has backgrounds of its own, but the training split's photos and recordings: mIoU "
        f"{full['validation_miou'].number:.3f} with sound and {without['validation_miou'].number:.3f} without there. "
        f"The audio encoder classifies {full['audio_accuracy'].number:.1%} of its patches. "
        f"Commit {full.commit}.{misled}"
    )


def _misled(sets: Sequence[tuple[Measurement, Measurement]]) -> str:
    """The classes whose mean mIoU is lower with the sound than without on every one of the sets of clips."""
    counts: Counter[str] = Counter()
    worse = []
    for full, without in sets:
        counts.update(full.case["categories"])
        gained: defaultdict[str, float] = defaultdict(float)
        scores = zip(full.case["categories"], full["miou"].samples, without["miou"].samples, strict=True)
        for category, with_audio, without_audio in scores:
            gained[category] += with_audio - without_audio
        worse.append({category for category, total in gained.items() if total < 0})
    named = [f"{category} ({counts[category]} clips)" for category in sorted(set.intersection(*worse))]
    return f"Worse with the sound on both sets of clips, by mIoU: {', '.join(named) or 'no class'}."


def accuracy_table(rows: Sequence[Measurement]) -> str:
    """A trained network's scores on every backend as Markdown, each compared with the first."""
    if len({(row.ran.files["manifest.json"], str(row.case["data"])) for row in rows}) != 1:
        raise BenchmarkError("rows of several bundles or splits cannot be compared.")
    first = rows[0]
    data = first.case["data"]

    def change(row: Measurement, metric: str) -> str:
        if row is first:
            return ""
        changes = [ours - theirs for ours, theirs in zip(row[metric].samples, first[metric].samples, strict=True)]
        if max(map(abs, changes)) < 5e-5:
            return "the same to four digits, every clip"
        return with_interval(mean_interval(changes), "+.4f")

    columns: Columns[Measurement] = [
        ("computed by", lambda row: f"`{row.case['target']}`" + ", as a stream" * row.case["streamed"]),
        ("mIoU", lambda row: with_interval(mean_interval(row["miou"].samples), ".4f")),
        ("F-score", lambda row: with_interval(mean_interval(row["f_score"].samples), ".4f")),
        (f"mIoU against {first.case['target']}, same clips", lambda row: change(row, "miou")),
        ("F-score", lambda row: change(row, "f_score")),
    ]
    packages = first.environment.packages if first.environment else {}
    names = [f"{name} {packages[name]}" for name in ("torch", "onnxruntime", "openvino") if name in packages]
    return (
        f"{markdown(rows, columns)}\n\n"
        f"{len(first['miou'].samples)} clips of {data['task']} {data['split']}, {data['height']} x {data['width']}; "
        f"mean over the clips with its 95 % bootstrap interval. {', '.join(names)}; commit {first.commit}."
    )
