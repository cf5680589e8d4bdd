"""What of a bundle there is to verify, and what of it cannot run here, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import GraphRecord
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.device.gpu import CudaDriver
from avsbg.runtime.device.native_library import native_library
from avsbg.runtime.errors import NativeLibraryError


@dataclass(frozen=True)
class Candidate:
    """A graph in one form, or an engine.

    Attributes:
        label: how the result names it.
        backend: what executes it.
        options: of the backend.
        precision: what it computes in.
        accuracy: its record of what the precision costs.
        why_not: why it cannot run here; None where it can.
        encode: options of the graph `encode`, where this is the pair of a stream, whose `options` are of `decode`.
    """

    label: str
    backend: str
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    accuracy: AccuracyRecord | None = None
    why_not: str | None = None
    encode: dict[str, Any] | None = None


def candidates(bundle: Bundle, driver: CudaDriver) -> list[Candidate]:
    """Every graph that takes what the vectors hold, in each form, every engine, and every pair of a stream's.

    Args:
        bundle: an open bundle.
        driver: what this machine's CUDA driver says.
    """
    taken = {tensor.name for record in bundle.manifest.vectors for tensor in record.inputs}
    found = []
    for name, graph in bundle.manifest.graphs.items():
        if GraphName.parse(name).role not in ("encode", "decode") and {tensor.name for tensor in graph.inputs} == taken:
            found += [_graph(name, graph, form) for form in (("function", "native") if _custom(graph) else ("plain",))]
    for name, engine in bundle.manifest.engines.items():
        if GraphName.parse(engine.graph).role in ("encode", "decode"):
            continue
        why_not = None if driver.problem is None else f"an engine needs a GPU: {driver.problem}"
        found.append(Candidate(name, engine.backend, {"engine": name}, engine.precision, engine.accuracy, why_not))
    return found + _stream_graphs(bundle) + _stream_engines(bundle, driver)


def _stream_graphs(bundle: Bundle) -> list[Candidate]:
    """Each form of `decode`, with the `encode` of its precision."""
    found = []
    for name, graph in bundle.manifest.graphs.items():
        parsed = GraphName.parse(name)
        encode = str(GraphName("encode", precision=graph.precision))
        if parsed.role == "decode" and encode in bundle.manifest.graphs:
            for form in ("function", "native") if _custom(graph) else ("plain",):
                one = _graph(name, graph, form)
                whole = bundle.manifest.graphs.get(str(replace(parsed, role="clip")))
                accuracy = one.accuracy or (whole.accuracy if whole is not None else None)
                label = f"{one.label} as a stream"
                found.append(replace(one, label=label, encode={"graph": encode}, accuracy=accuracy))
    return found


def _stream_engines(bundle: Bundle, driver: CudaDriver) -> list[Candidate]:
    """Each engine of `decode`, with the one of `encode` of its backend, precision and device."""
    found = []
    engines = bundle.manifest.engines
    for name, decode in engines.items():
        if GraphName.parse(decode.graph).role != "decode":
            continue
        partners = [
            other
            for other, engine in engines.items()
            if GraphName.parse(engine.graph).role == "encode"
            and (engine.backend, engine.precision, engine.device) == (decode.backend, decode.precision, decode.device)
        ]
        why_not = None if driver.problem is None else f"an engine needs a GPU: {driver.problem}"
        if not partners:
            why_not = f"{name} has no engine of encode beside it"
        encode = {"engine": partners[0]} if partners else None
        label = f"{name} as a stream"
        found.append(Candidate(label, decode.backend, {"engine": name}, decode.precision, None, why_not, encode))
    return found


def _graph(name: str, graph: GraphRecord, form: str) -> Candidate:
    why_not = PRECISIONS[graph.precision].cpu_limitation
    if form == "native" and why_not is None:
        try:
            native_library("onnxruntime")
        except NativeLibraryError as error:
            why_not = str(error)
    label = f"onnxruntime:{form}" + ("" if graph.precision == "fp32" else f":{graph.precision}")
    options = {"graph": name, "operator": form}
    return Candidate(label, "onnxruntime", options, graph.precision, graph.accuracy, why_not)


def _custom(graph: GraphRecord) -> bool:
    return graph.operator == "custom"
