"""One row of what a precision costs: its logits and masks against PyTorch's, on test vectors or on a split."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.measure.cases import GRAPH, describe_bundle
from avsbg.benchmarks.results.schema import Facts, Measurement, Metric, Run
from avsbg.benchmarks.results.statistics import mean_interval
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision

if TYPE_CHECKING:
    from avsbg.export.precision.accuracy import ClipAgreement
    from avsbg.model.training.data import AvsBenchDataset, Sample
    from avsbg.model.training.evaluation import Evaluation, Predict
    from avsbg.runtime.backends import Backend

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ScoredSplit:
    """A split of a data set, with PyTorch's logits and scores for it.

    Attributes:
        dataset: the split.
        logits: float32 `[clips, T, H, W]`, in a file.
        scores: of those.
    """

    dataset: AvsBenchDataset
    logits: np.memmap[Any, Any]
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
            scores = _evaluate(
                dataset, backend, "PyTorch", progress, lambda index, _, ours: _store(logits, index, ours)
            )
        return cls(dataset, logits, scores)


def _store(logits: np.memmap[Any, Any], index: int, ours: np.ndarray[Any, Any]) -> None:
    logits[index] = ours


def _evaluate(
    dataset: AvsBenchDataset,
    backend: Backend,
    what: str,
    progress: Progress,
    see: Callable[[int, str, np.ndarray[Any, Any]], None],
) -> Evaluation:
    """Score a backend by the code that scores checkpoints; `see` is given each clip's number, name and logits."""
    from avsbg.benchmarks.measure.accuracy import bundle_predictor
    from avsbg.model.training.evaluation import evaluate

    predict: Predict = bundle_predictor(backend)
    done = 0

    def seeing(sample: Sample) -> Any:
        logits = predict(sample)
        see(done, sample.clip.name, logits.numpy())
        return logits

    def advance() -> None:
        nonlocal done
        done += 1
        progress(f"{what} on {dataset.task} {dataset.split}", done, len(dataset))

    return evaluate(dataset, seeing, advance=advance)


def measure(
    bundle: Bundle, made: Bundle, precision: Precision, split: ScoredSplit | None, progress: Progress, *, threads: int
) -> Measurement:
    """One row: a precision on the bundle's test vectors, or on a split.

    Args:
        bundle: whose network it is.
        made: the same, with a graph in the precision.
        precision: to run.
        split: of a data set; None for the test vectors.
        progress: called as clips are done.
        threads: of the runtime.

    Raises:
        BackendError: ONNX Runtime cannot run the graph.
        DatasetError: the bundle does not take the data set's clips.
    """
    from avsbg.export.precision.accuracy import accuracy_backend, clip_agreement, summarize
    from avsbg.export.precision.emulated import label

    started = datetime.now(timezone.utc)
    emulated = PRECISIONS[precision].emulated
    what = label(precision) if emulated else precision
    name = str(GraphName(GRAPH).converted(precision)) if PRECISIONS[precision].is_converted else GRAPH
    clips: list[ClipAgreement] = []
    scores: dict[str, Metric] = {}
    with accuracy_backend(made, name, precision, threads=threads) as backend:
        described = backend.describe()
        if split is None:
            clips += _on_vectors(made, backend, what, progress)
        else:
            reference = split.logits
            scores = _scores(
                _evaluate(
                    split.dataset,
                    backend,
                    what,
                    progress,
                    lambda index, clip, ours: clips.append(clip_agreement(clip, ours, reference[index])),
                ),
                split.scores,
            )
    agreement = summarize(clips)
    accuracy = made.graph(name).accuracy
    least = PRECISIONS[precision].min_miou if accuracy is None else accuracy.min_miou
    clip = bundle.manifest.clip
    return Measurement(
        kind="precision",
        case={
            "precision": precision,
            "emulated": emulated,
            "frames": clip.frames,
            "height": clip.height,
            "width": clip.width,
            "data": _describe_vectors(bundle) if split is None else _describe_split(split.dataset),
            "clips": agreement.clips,
            "graph": name,
            "reference": "PyTorch, float32",
            "worst_clip": agreement.worst[0],
            "passed": agreement.finite and agreement.miou >= least,
            **_calibration(made, precision),
        },
        metrics={
            **_graph_metrics(made, name, precision),
            "logit_error": Metric(value=agreement.logit_error),
            "largest": Metric(value=agreement.largest),
            "agreement": Metric(value=agreement.miou),
            "worst_agreement": Metric(value=agreement.worst[1]),
            "flipped": Metric(value=agreement.flipped),
            "min_agreement": Metric(value=least),
            **scores,
        },
        ran=describe_bundle(
            bundle,
            files=describe_bundle(bundle).files | {name: made.manifest.files[made.graph(name).file].sha256},
            backend=described,
        ),
        run=Run(started=started, command=("python", "-m", "avsbg.benchmarks.measure.precision", *sys.argv[1:])),
        environment=describe_environment(),
    )


def _on_vectors(bundle: Bundle, backend: Backend, what: str, progress: Progress) -> list[ClipAgreement]:
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


def _scores(ours: Evaluation, reference: Evaluation) -> dict[str, Metric]:
    """Means over the clips as AVS-BG's published figures, and their changes from float32 of the same clips."""
    metrics = {}
    for name in ("miou", "f_score"):
        scores, others = ([getattr(clip.score, name) for clip in one.clips] for one in (ours, reference))
        changes = [one - other for one, other in zip(scores, others, strict=True)]
        metrics[name] = Metric.of(mean_interval(scores), scores)
        metrics[f"{name}_change"] = Metric.of(mean_interval(changes))
    return metrics


def _graph_metrics(made: Bundle, name: str, precision: Precision) -> dict[str, Metric]:
    """The size of the graph, its products by their inputs' type, and those that take a higher one by the reason."""
    from avsbg.export.precision.graphs import expected_types, kept_higher

    record, files = made.graph(name), made.manifest.files
    # What is float32 in the graph, a tf32 engine rounds as it multiplies.
    types = expected_types(made, GRAPH, precision).values()
    products = Counter("tf32" if precision == "tf32" else kind for kind in types)
    higher = Counter(kept_higher(made, GRAPH, precision).values())
    size = sum(files[file].bytes for file in (record.file, *record.external_data))
    return {
        "graph_bytes": Metric(unit="B", value=size),
        "products": Metric(value=products.total(), parts=dict(products)),
        "higher": Metric(value=higher.total(), parts=dict(higher)),
    }


def _calibration(made: Bundle, precision: Precision) -> Facts:
    """The calibration of int8 and fp8; nothing for other precisions."""
    quantisation = {str(key): one for key, one in made.manifest.quantisations.items()}.get(precision)
    if quantisation is None:
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
