"""A bundle's graphs and engines against its test vectors: what PyTorch returned for the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avsbg.native_library import NativeLibraryError, native_library
from avsbg.runtime.backends import Arrays, Backend
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.backends.spec import BackendSpec, OperatorImplementation
from avsbg.runtime.bundle import Bundle, Vectors
from avsbg.runtime.bundle.engine_record import AccuracyRecord, EngineRecord
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import GraphRecord
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.device.gpu import CudaDriver
from avsbg.runtime.errors import BundleError

Array = NDArray[Any]

# The largest difference of an output that passes by default: float32 engines order their sums differently.
TOLERANCE = 1e-3
DECISION = 0.5
# The accuracy threshold where a graph or engine of lower precision has no record with its own.
DEFAULT_MIN_MIOU = 0.99


@dataclass(frozen=True)
class VerifyCase:
    """A graph with one implementation of the operator, an engine, or the pair of a stream."""

    label: str
    backend: str  # as `BackendSpec` reads it
    options: dict[str, Any] = field(default_factory=dict)
    accuracy: AccuracyRecord | None = None  # its record of what the precision costs
    why_not: str | None = None  # why it cannot run here; None where it can
    encode: dict[str, Any] | None = None  # options of the graph `encode` of a pair, whose `options` are of `decode`


@dataclass(frozen=True)
class Comparison:
    """One output of one backend against one file of test vectors."""

    vectors: str
    clips: int  # the batch of the vectors
    output: str
    elements: int
    largest_absolute: float  # the largest |difference|; NaN where either side has one
    largest_relative: float  # that, divided by the largest magnitude of the reference
    flips: int | None  # of `probability`: those of `elements` on the other side of 0.5; else None
    passed: bool  # whether `largest_absolute` is within the tolerance


@dataclass(frozen=True)
class ClipAccuracy:
    """One clip as the task sees it: the masks of a backend against those of PyTorch."""

    vectors: str
    clip: int  # its number among those of the file
    miou: float  # mean over the frames of the masks' IoU; 1 where both are empty
    flipped: float  # the share of pixels on the other side of 0.5


@dataclass(frozen=True)
class VerifyResult:
    """The outputs of a backend against PyTorch's; `miou` and `flipped` are means over all clips."""

    min_miou: float | None  # the accuracy threshold; None for fp32, whose outputs must all be within the tolerance
    miou: float
    flipped: float
    passed: bool  # by the `rule`; an output that is not finite never passes
    comparisons: tuple[Comparison, ...]
    clips: tuple[ClipAccuracy, ...]

    @property
    def rule(self) -> Literal["tolerance", "gate"]:
        """The rule, as results on disk name it."""
        return "tolerance" if self.min_miou is None else "gate"

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with the threshold under its name on disk."""
        fields = asdict(self)
        return {"rule": self.rule, "least_miou": fields.pop("min_miou"), **fields}


def list_cases(bundle: Bundle, driver: CudaDriver) -> list[VerifyCase]:
    """Every graph that takes what the vectors hold, with each implementation, every engine, and every pair of a stream.

    `driver` is that of this machine.
    """
    taken = {tensor.name for record in bundle.manifest.vectors for tensor in record.inputs}
    found: list[VerifyCase] = []
    for name, graph in bundle.manifest.graphs.items():
        if {tensor.name for tensor in graph.inputs} == taken and not GraphName.parse(name).is_of_stream:
            found += _graph_cases(name, graph)
    for name, engine in bundle.manifest.engines.items():
        if not GraphName.parse(engine.graph).is_of_stream:
            found.append(_engine_case(name, engine, driver))
    return found + _stream_graphs(bundle) + _stream_engines(bundle, driver)


def _graph_cases(name: str, graph: GraphRecord) -> list[VerifyCase]:
    """A graph on ONNX Runtime, with each implementation of the operator that it allows."""
    cases = []
    for operator in OnnxRuntimeBackend.OPERATORS:
        if operator.graph_form != graph.operator:
            continue
        why_not = PRECISIONS[graph.precision].cpu_limitation
        if operator is OperatorImplementation.NATIVE and why_not is None:
            try:
                native_library("onnxruntime")
            except NativeLibraryError as error:
                why_not = str(error)
        precision = None if graph.precision == "fp32" else graph.precision
        label = str(BackendSpec("onnxruntime", operator, precision, graph.rest))
        options = {"graph": name, "operator": operator}
        cases.append(VerifyCase(label, "onnxruntime", options, graph.accuracy, why_not))
    return cases


def _engine_case(name: str, engine: EngineRecord, driver: CudaDriver) -> VerifyCase:
    why_not = None if driver.problem is None else f"an engine needs a GPU: {driver.problem}"
    return VerifyCase(name, engine.backend, {"engine": name}, engine.accuracy, why_not)


def _stream_graphs(bundle: Bundle) -> list[VerifyCase]:
    """Each `decode`, with the `encode` of its precision."""
    graphs, found = bundle.manifest.graphs, []
    for name, graph in graphs.items():
        parsed = GraphName.parse(name)
        encode = str(GraphName("encode", precision=graph.precision, rest=graph.rest))
        if parsed.role != "decode" or encode not in graphs:
            continue
        for case in _graph_cases(name, graph):
            label = f"{case.label} as a stream"
            found.append(replace(case, label=label, encode={"graph": encode}, accuracy=bundle.accuracy(name)))
    return found


def _stream_engines(bundle: Bundle, driver: CudaDriver) -> list[VerifyCase]:
    """Each engine of `decode`, with the one of `encode` of its backend, precision and device."""
    found = []
    engines = bundle.manifest.engines
    for name, decode in engines.items():
        if GraphName.parse(decode.graph).role != "decode":
            continue
        wanted = ("encode", decode.backend, decode.precision, decode.rest, decode.device)
        partners = (
            {"encode": {"engine": other}}
            for other, engine in engines.items()
            if (GraphName.parse(engine.graph).role, engine.backend, engine.precision, engine.rest, engine.device)
            == wanted
        )
        changes = next(partners, {"why_not": f"{name} has no engine of encode beside it"})
        case = _engine_case(name, decode, driver)
        found.append(replace(case, label=f"{name} as a stream", accuracy=None, **changes))
    return found


def verify_backend(
    backend: Backend,
    vectors: Iterable[Vectors],
    *,
    tolerance: float = TOLERANCE,
    precision: str = "fp32",
    accuracy: AccuracyRecord | None = None,
    on_outputs: Callable[[Vectors, Arrays], None] | None = None,
) -> VerifyResult:
    """Run an open backend on test vectors and hold its outputs against what its precision promises.

    Args:
        vectors: at least one file.
        tolerance: the largest difference that passes in fp32.
        precision: of what the backend executes.
        accuracy: its record of what the precision costs, whose threshold holds; without one, `DEFAULT_MIN_MIOU`. Where
            that was judged on other clips, the vectors must give about what they gave then.
        on_outputs: called with each file of vectors and the outputs.

    Raises:
        BackendError: the backend does not take the inputs, lacks an output, or failed.
    """
    comparisons: list[Comparison] = []
    clips: list[ClipAccuracy] = []
    for one in vectors:
        results = backend.run(one.inputs, list(one.outputs))
        if on_outputs is not None:
            on_outputs(one, results)
        comparisons += [_compare_output(one, name, results[name], tolerance) for name in one.outputs]
        if "probability" in one.outputs:
            clips += clip_accuracies(one, results)
    miou = float(np.mean([clip.miou for clip in clips])) if clips else float("nan")
    flipped = float(np.mean([clip.flipped for clip in clips])) if clips else float("nan")
    if precision == "fp32":
        min_miou, passed = None, all(comparison.passed for comparison in comparisons)
    else:
        min_miou = DEFAULT_MIN_MIOU if accuracy is None else _min_miou_on_vectors(accuracy)
        passed = miou >= min_miou and all(np.isfinite(comparison.largest_absolute) for comparison in comparisons)
    return VerifyResult(min_miou, miou, flipped, passed, tuple(comparisons), tuple(clips))


def _min_miou_on_vectors(accuracy: AccuracyRecord) -> float:
    """The mean IoU that the vectors must reach: the threshold, or, where other clips were judged, what they gave then.

    As much again may be lost of that as the threshold allows: another backend rounds differently.
    """
    if accuracy.vectors_miou is None:
        return accuracy.min_miou
    return max(0.0, min(accuracy.min_miou, accuracy.vectors_miou - (1.0 - accuracy.min_miou)))


def clip_accuracies(vectors: Vectors, results: Arrays) -> list[ClipAccuracy]:
    """Each clip of the outputs `probability` or `classes`, `[B, T, H, W]`, against that of the vectors."""
    name = _decided(vectors)
    ours, theirs = results[name], vectors.outputs[name]
    if name == "probability":
        ours, theirs = ours > DECISION, theirs > DECISION
    iou = mask_iou(ours, theirs).mean(axis=1)
    flipped = (ours != theirs).mean(axis=(1, 2, 3))
    return [ClipAccuracy(vectors.record.file, clip, float(iou[clip]), float(flipped[clip])) for clip in range(len(iou))]


def _decided(vectors: Vectors) -> str:
    """The output that says what a pixel is."""
    return "classes" if "classes" in vectors.outputs else "probability"


def mask_iou(ours: Array, theirs: Array) -> Array:
    """The IoU of each frame's two masks, `[..., H, W]` to `[...]`: bool, or numbers of classes; 1 where both are empty.

    Of classes, 0 is the background, and a pixel is in both where both have the same.
    Training has AVSBench's own (`avsbg.model.training.metrics`), which scores an empty annotation by its background.
    """
    both = ((ours == theirs) & (theirs != 0)).sum(axis=(-2, -1))
    either = ((ours != 0) | (theirs != 0)).sum(axis=(-2, -1))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def select_vectors(bundle: Bundle, clips: Sequence[int] = ()) -> Iterator[Vectors]:
    """The bundle's test vectors with those numbers of clips, or all; a `BundleError` if a number has none."""
    records = bundle.manifest.vectors
    if not records:
        raise BundleError(f"{bundle.path} holds no test vectors.", "Export the bundle again.")
    have = sorted({record.clips for record in records})
    if unknown := [number for number in clips if number not in have]:
        raise BundleError(
            f"{bundle.path} has no test vectors of {unknown[0]} clips.", f"It has: {', '.join(map(str, have))}."
        )
    return (vectors for vectors in bundle.vectors() if not clips or vectors.record.clips in clips)


def compare(backend: Backend, vectors: Vectors, tolerance: float = TOLERANCE) -> list[Comparison]:
    """Run an open backend on the vectors' inputs and compare each output; raises as `verify_backend` does."""
    results = backend.run(vectors.inputs, list(vectors.outputs))
    return [_compare_output(vectors, name, results[name], tolerance) for name in vectors.outputs]


def _compare_output(vectors: Vectors, name: str, result: Array, tolerance: float) -> Comparison:
    reference = vectors.outputs[name]
    with np.errstate(invalid="ignore"):  # infinity less infinity: NaN, which does not pass
        difference = np.abs(result.astype(np.float64) - reference)
    if name == "classes":
        # Half of what PyTorch's logits put our class behind the first: errors of so much exchange the two.
        logits = vectors.outputs["logits"]
        chosen = np.take_along_axis(logits, result[:, :, None], axis=2)[:, :, 0]
        difference = (logits.max(axis=2) - chosen) / 2
    largest = float(difference.max())
    flips = int(((result > DECISION) != (reference > DECISION)).sum()) if name == "probability" else None
    relative = largest / max(float(np.abs(reference).max()), float(np.finfo(np.float32).tiny))
    passed = bool(largest <= tolerance)  # not `largest > tolerance`: NaN compares false either way and must fail
    record = vectors.record
    return Comparison(record.file, record.clips, name, reference.size, largest, relative, flips, passed)
