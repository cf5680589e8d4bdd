"""Accuracy of precisions: their logits and masks against PyTorch's in float32.

Each precision of each bundle is run on the processor on the bundle's test vectors (and, if asked for, on a split of a
data set), bf16 and tf32 emulated. Precisions that a bundle has no graph in yet are made in a copy of it, which is
thrown away.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.measure.cases import GRAPH, describe_bundle
from avsbg.benchmarks.results.schema import Facts, Measurement, Metric, Run, read_rows, write_rows
from avsbg.benchmarks.results.statistics import mean_interval
from avsbg.progress import Progress
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.precision import PRECISIONS, validate_rest
from avsbg.runtime.bundle.record_types import Precision

if TYPE_CHECKING:
    from avsbg.export.precision.accuracy import ClipAgreement
    from avsbg.model.training.data import AvsBenchDataset, Sample
    from avsbg.model.training.evaluation import Evaluation
    from avsbg.runtime.backends import Backend

Logits = np.ndarray[Any, Any]
# At most, where a bundle was not calibrated.
CALIBRATION_CLIPS = 16


def measure_precisions(
    paths: Sequence[Path],
    output: Path,
    progress: Progress,
    *,
    precisions: Sequence[str] = (),
    rest: Precision | None = None,
    calibrate: str = "vectors",
    dataset: AvsBenchDataset | None = None,
    threads: int = 1,
    append: bool = False,
) -> list[Measurement]:
    """Measure precisions of bundles, unchanged, and write the rows; what is done is kept if a later one fails.

    `precisions` are all if none is named; int8 and fp8 are calibrated on `calibrate` where they were not, as by `avsbg
    convert --calibrate`. With a `rest`, the type of what int8 and fp8 do not quantise, only these two are measured.
    `append` keeps the rows in the file, but for those that are measured again.
    """
    if unknown := [name for name in precisions if name not in PRECISIONS]:
        raise BenchmarkError(f"--precision {unknown[0]} does not exist.", f"Choose: {', '.join(PRECISIONS)}.")
    names = precisions or [name for name, spec in PRECISIONS.items() if rest is None or spec.quantization is not None]
    if problems := [problem for name in names if (problem := validate_rest(name, rest))]:
        raise BenchmarkError(problems[0])
    wanted = tuple(GraphName(GRAPH, precision=name, rest=rest) for name in PRECISIONS if name in names)
    old = read_rows(output, "precision") if append and output.exists() else []
    new: list[Measurement] = []
    for bundle in [Bundle.open(path) for path in paths]:

        def report(what: str, done: int, total: int | None, name: str = bundle.manifest.name) -> None:
            progress(f"{name}: {what}", done, total)

        with with_precisions(bundle, wanted, calibrate, report) as made, tempfile.TemporaryDirectory() as folder:
            sources: list[ScoredSplit | None] = [None] if bundle.manifest.vectors else []
            if dataset is not None:
                sources.append(ScoredSplit.open(bundle, dataset, Path(folder), report, threads))
            for source in sources:
                for one in wanted:
                    new.append(measure(bundle, made, one, source, report, threads=threads))
                    write_rows(output, _merge(old, new))
    return new


@contextmanager
def with_precisions(
    bundle: Bundle, wanted: Sequence[GraphName], calibrate: str, progress: Progress
) -> Iterator[Bundle]:
    """Yield the bundle, or a throw-away copy of it that has each graph that is executed in a precision of its own."""
    from avsbg.export.external_data import check_external_data
    from avsbg.export.precision.calibrate import ClipSource, open_clips
    from avsbg.export.precision.graphs import add_graph
    from avsbg.export.precision.sensitivity import calibrate_bundle
    from avsbg.runtime.bundle import update_bundle

    graphs = bundle.manifest.graphs
    missing = [one for one in wanted if PRECISIONS[one.precision].is_converted and str(one) not in graphs]
    if not missing:
        yield bundle
        return
    check_external_data(bundle, bundle.graph(GRAPH))
    with tempfile.TemporaryDirectory(prefix="avsbg-") as folder:
        copy = Bundle.open(Path(shutil.copytree(bundle.path, Path(folder) / "bundle")))
        with update_bundle(copy) as update:
            for done, graph in enumerate(missing):
                one = graph.precision
                progress(f"expressing the graph in {one}", done, len(missing))
                if PRECISIONS[one].quantization is not None and one not in bundle.manifest.quantisations:
                    clips = open_clips(ClipSource(calibrate, CALIBRATION_CLIPS), copy)
                    min_miou = PRECISIONS[one].min_miou
                    update.quantisations[one] = calibrate_bundle(copy, one, clips, min_miou, progress)
                add_graph(update, GRAPH, one, graph.rest)
        yield Bundle.open(copy.path)


def _merge(old: Sequence[Measurement], new: Sequence[Measurement]) -> list[Measurement]:
    """Old rows but for those whose network, weights, precision and clips are a new one's, and then the new ones."""

    def key(row: Measurement) -> tuple[str, ...]:
        data = row.case["data"]
        precision = row.case["precision"], row.case.get("rest", "fp32")
        return row.ran.network, str(row.ran.weights), *precision, data["kind"], data["name"]

    renewed = {key(row) for row in new}
    return [*(row for row in old if key(row) not in renewed), *new]


@dataclass(frozen=True)
class ScoredSplit:
    """A split of a data set, with PyTorch's logits and scores for it."""

    dataset: AvsBenchDataset
    logits: np.memmap[Any, Any]  # float32 [clips, T, H, W]
    scores: Evaluation

    @classmethod
    def open(
        cls, bundle: Bundle, dataset: AvsBenchDataset, folder: Path, progress: Progress, threads: int
    ) -> ScoredSplit:
        """Run PyTorch on the split."""
        from avsbg.export.torch_backend import TorchBackend

        clip = bundle.manifest.clip
        shape = (len(dataset), clip.frames, clip.height, clip.width)
        logits = np.memmap(folder / "logits", np.float32, "w+", shape=shape)
        with TorchBackend(bundle, GRAPH, threads=threads) as backend:
            scores = cls._evaluate(dataset, backend, "PyTorch", progress, logits.__setitem__)
        return cls(dataset, logits, scores)

    def compare(self, backend: Backend, what: str, progress: Progress) -> tuple[list[ClipAgreement], Evaluation]:
        """Run a backend on the split: each clip's agreement with PyTorch, and the scores."""
        from avsbg.export.precision.accuracy import clip_agreement

        clips: list[ClipAgreement] = []

        def see(index: int, logits: Logits) -> None:
            clips.append(clip_agreement(self.dataset.clips[index].name, logits, self.logits[index]))

        scores = self._evaluate(self.dataset, backend, what, progress, see)
        return clips, scores

    @staticmethod
    def _evaluate(
        dataset: AvsBenchDataset, backend: Backend, what: str, progress: Progress, see: Callable[[int, Logits], None]
    ) -> Evaluation:
        """Score a backend by the code that scores checkpoints; `see` is given each clip's number and logits."""
        from avsbg.benchmarks.measure.accuracy import bundle_predictor
        from avsbg.model.training.evaluation import evaluate

        predict, done = bundle_predictor(backend), 0

        def predict_and_show(sample: Sample) -> Any:
            logits = predict(sample)
            see(done, logits.numpy())
            return logits

        def advance() -> None:
            nonlocal done
            done += 1
            progress(f"{what} on {dataset.task} {dataset.split}", done, len(dataset))

        return evaluate(dataset, predict_and_show, advance=advance)


def measure(
    bundle: Bundle, made: Bundle, wanted: GraphName, split: ScoredSplit | None, progress: Progress, *, threads: int
) -> Measurement:
    """Measure a precision on the bundle's test vectors, or on a split of a data set.

    `made` is the bundle with the graph `wanted`, if one is made for the precision. A `DatasetError` if it does not take
    the data set's clips.
    """
    from avsbg.export.precision.accuracy import accuracy_backend, summarize
    from avsbg.export.precision.emulated import label

    started, precision = datetime.now(timezone.utc), wanted.precision
    emulated = PRECISIONS[precision].emulated
    what = label(precision) if emulated else precision
    name = str(wanted) if PRECISIONS[precision].is_converted else GRAPH
    scores: dict[str, Metric] = {}
    with accuracy_backend(made, name, precision, threads=threads) as backend:
        described = backend.describe()
        if split is None:
            clips = _compare_vectors(made, backend, what, progress)
        else:
            clips, evaluation = split.compare(backend, what, progress)
            scores = _score_metrics(evaluation, split.scores)
    agreement = summarize(clips)
    accuracy = made.graph(name).accuracy
    least = PRECISIONS[precision].min_miou if accuracy is None else accuracy.min_miou
    clip = bundle.manifest.clip
    hashes = describe_bundle(bundle).files | {name: made.manifest.files[made.graph(name).file].sha256}
    return Measurement(
        kind="precision",
        case={
            "precision": precision,
            "emulated": emulated,
            **({"rest": wanted.rest} if wanted.rest else {}),
            **{key: getattr(clip, key) for key in ("frames", "height", "width")},
            "data": _describe_vectors(bundle) if split is None else _describe_split(split.dataset),
            "clips": agreement.clips,
            "graph": name,
            "reference": "PyTorch, float32",
            "worst_clip": agreement.worst[0],
            "passed": agreement.finite and agreement.miou >= least,
            **_calibration(made, precision),
        },
        metrics={
            **_graph_metrics(made, name, precision, wanted.rest),
            "logit_error": Metric(value=agreement.logit_error),
            "largest": Metric(value=agreement.largest),
            "agreement": Metric(value=agreement.miou),
            "worst_agreement": Metric(value=agreement.worst[1]),
            "flipped": Metric(value=agreement.flipped),
            "min_agreement": Metric(value=least),
            **scores,
        },
        ran=describe_bundle(bundle, files=hashes, backend=described),
        run=Run(started=started, command=("python", "-m", "avsbg.benchmarks", *sys.argv[1:])),
        environment=describe_environment(),
    )


def _compare_vectors(bundle: Bundle, backend: Backend, what: str, progress: Progress) -> list[ClipAgreement]:
    from avsbg.export.precision.accuracy import clip_agreement

    clips: list[ClipAgreement] = []
    total = sum(record.clips for record in bundle.manifest.vectors)
    for vectors in bundle.vectors():
        progress(f"{what} on the test vectors", len(clips), total)
        logits = backend.run(vectors.inputs, ["logits"])["logits"]
        pairs = zip(logits, vectors.outputs["logits"], strict=True)
        clips += [clip_agreement(f"{vectors.record.file}, clip {n}", *pair) for n, pair in enumerate(pairs)]
    progress(f"{what} on the test vectors", total, total)
    return clips


def _score_metrics(ours: Evaluation, reference: Evaluation) -> dict[str, Metric]:
    """Means over the clips as AVS-BG's published figures, and their changes from float32 of the same clips."""
    metrics = {}
    for name in ("miou", "f_score"):
        scores, others = ([getattr(clip.score, name) for clip in one.clips] for one in (ours, reference))
        changes = [one - other for one, other in zip(scores, others, strict=True)]
        metrics[name] = Metric.of(mean_interval(scores), scores)
        metrics[f"{name}_change"] = Metric.of(mean_interval(changes))
    return metrics


def _graph_metrics(made: Bundle, name: str, precision: Precision, rest: Precision | None) -> dict[str, Metric]:
    """The size of the graph, its products by their inputs' type, and those that take a higher one by the reason."""
    from avsbg.export.precision.graphs import expected_types, kept_higher

    record, files = made.graph(name), made.manifest.files
    # A tf32 engine rounds float32 values of the graph as it multiplies.
    types = expected_types(made, GRAPH, precision, rest).values()
    products = Counter("tf32" if precision == "tf32" else kind for kind in types)
    higher = Counter(kept_higher(made, GRAPH, precision, rest).values())
    size = sum(files[file].bytes for file in (record.file, *record.external_data))
    return {
        "graph_bytes": Metric(unit="B", value=size),
        "products": Metric(value=products.total(), parts=dict(products)),
        "higher": Metric(value=higher.total(), parts=dict(higher)),
    }


def _calibration(made: Bundle, precision: Precision) -> Facts:
    """The calibration of int8 and fp8; nothing for other precisions."""
    quantisations = {str(key): one for key, one in made.manifest.quantisations.items()}
    if (quantisation := quantisations.get(precision)) is None:
        return {}
    record = quantisation.calibration.model_dump(mode="json", exclude={"files"})
    return {"calibration": record | {"method": quantisation.method, "left_out": len(quantisation.left_out)}}


def _describe_vectors(bundle: Bundle) -> Facts:
    records = bundle.manifest.vectors
    return {
        "kind": "vectors",
        "name": "test vectors",
        "sha256": {record.file: bundle.manifest.files[record.file].sha256 for record in records},
        "clips": sum(record.clips for record in records),
    }


def _describe_split(dataset: AvsBenchDataset) -> Facts:
    from avsbg.model.training.data import describe_data

    names = {"clips' names": describe_data(dataset)["sha256"]}
    return {"kind": "dataset", "name": f"{dataset.task} {dataset.split}", "sha256": names, "clips": len(dataset)}
