"""The attention maps of a clip, read from inside a bundle's graph; PyTorch takes no part.

Which tensor is which map follows from the names of the nodes, which the exporter takes from the network's modules. It
is then checked by value: on the bundle's vectors, the tensors must be the stages that PyTorch computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray

from avsbg.errors import AvsbgError
from avsbg.export.graph_tensors import GraphTensors, module_of, stage_difference, stage_names
from avsbg.export.operators import DOMAIN, DOMAIN_VERSION, correlation_volume_body
from avsbg.export.sessions import Session
from avsbg.model.registry import NETWORKS
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName

Array = NDArray[Any]

GATE, ATTENTION, TPAVI = "fusion_gate", "correlation_attention", "tpavi_response"
# Titles of the maps, for people.
TITLES = {GATE: "fusion gate", ATTENTION: "correlation attention", TPAVI: "TPAVI response"}
# Largest difference of an fp32 tensor from PyTorch's stage, as a share of that stage's largest value.
TOLERANCE = 1e-3
_OPSET, _IR_VERSION = 20, 10
_MEAN, _FEATURES = "mean_correlation", "fused"


class VisualizeError(AvsbgError):
    """The network has no such map, or what was asked for lies outside the video."""


@dataclass(frozen=True)
class ClipMaps:
    """The attention maps and features of one clip of T frames; lists hold an array for each stage, strides 4 to 32.

    Of the kinds of maps, `fusion_gate` and `correlation_attention` of AVS-BG lie between 0 and 1. `tpavi_response` of
    AVSBench is `<theta, phi> / N`, a position's weight for its own frame's sound in TPAVI, and has a sign.
    """

    probability: Array  # float32 `[T, H, W]`
    maps: dict[str, list[Array]]  # by kind, `[T, h, w]`
    mean_correlation: list[Array]  # `[T, h, w]`, before the attention's sigmoid; empty without motion
    features: list[Array]  # `[T, 128, h, w]`, what is correlated; empty without motion


class MapReader:
    """Reads the attention maps of clips from a graph of whole clips.

    `tensors` has each stage's (`fusion_gate.0`) tensor, of TPAVI two; `missing`, by kind of map, why the network has
    none; `differences`, by stage, how far its tensor is from PyTorch's on the bundle's vectors, relative to the largest
    value, and nothing where they hold no stages.

    Raises:
        VisualizeError: the network has no attention map, the graph is one of a stream, or a tensor is not what PyTorch
            computed.
        BundleError: the bundle has no such graph.
    """

    def __init__(self, bundle: Bundle, graph: str = "clip") -> None:
        record = bundle.graph(graph)
        if "probability" not in {t.name for t in record.outputs} or "frames" not in {t.name for t in record.inputs}:
            clips = [name for name in bundle.manifest.graphs if GraphName.parse(name).role == "clip"]
            raise VisualizeError(
                f"the graph {graph} of {bundle.path} does not take whole clips.", f"Name one of: {', '.join(clips)}."
            )
        self.tensors: dict[str, tuple[str, ...]] = {}
        self.missing = _missing(bundle)
        self.name = bundle.manifest.name
        self._graph = GraphTensors(bundle, graph)
        self._scopes = {module_of(node.name) for node in self._graph.nodes}
        self._find()
        if not any(stage.partition(".")[0] in TITLES for stage in self.tensors):
            reasons = " ".join(f"No {TITLES[kind]}: {why}." for kind, why in self.missing.items())
            raise VisualizeError(f"{bundle.manifest.name} has no attention maps. {reasons}".strip())
        names = list(dict.fromkeys(name for group in self.tensors.values() for name in group))
        try:
            self._run = self._graph.open([*names, "probability"])
            self.differences = self._check(bundle)
        except AvsbgError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class.
            raise VisualizeError(
                f"ONNX Runtime cannot run the graph {graph} on the processor: {error}", "Name another with --graph."
            ) from error
        self._check_differences(bundle, graph)

    def _find(self) -> None:
        for stage in count():
            fusion, correlation = f"network.fusion.{stage}", f"network.correlation.{stage}"
            tpavi = f"network.tpavi.{stage}"
            if fusion in self._scopes:
                self.tensors[f"{GATE}.{stage}"] = (self._only(fusion, "Sigmoid"),)
            if correlation in self._scopes:
                attention = self._only(correlation, "Sigmoid")
                self.tensors[f"{ATTENTION}.{stage}"] = (attention,)
                self.tensors[f"{_MEAN}.{stage}"] = (self._before_affine(attention),)
                self.tensors[f"{_FEATURES}.{stage}"] = (self._entry(correlation),)
            if tpavi in self._scopes and TPAVI not in self.missing:
                pair = (self._only(f"{tpavi}.theta", "Conv"), self._only(f"{tpavi}.phi", "Conv"))
                self.tensors[f"{TPAVI}.{stage}"] = pair
            if not {fusion, correlation, tpavi} & self._scopes:
                return

    def _only(self, scope: str, operator: str) -> str:
        """The output of the one node of that type in a module."""
        found = [n.output[0] for n in self._graph.nodes if n.op_type == operator and module_of(n.name) == scope]
        if len(found) != 1:
            raise VisualizeError(
                f"the graph {self._graph.name} has {len(found)} nodes {operator} in {scope}, where one is expected.",
                "Export the bundle again with this version.",
            )
        return str(found[0])

    def _entry(self, scope: str) -> str:
        """The input of a module: the first tensor that its nodes take from elsewhere."""
        first = next(node for node in self._graph.nodes if module_of(node.name) == scope)
        return str(first.input[0])

    def _before_affine(self, name: str) -> str:
        """The x of `sigmoid(x * weight + bias)`."""
        producer, nodes = self._graph.producer, self._graph.nodes
        name = nodes[producer[name]].input[0]
        while nodes[producer[name]].op_type in ("Add", "Mul", "Cast"):
            name = next(value for value in nodes[producer[name]].input if value in producer)
        return str(name)

    def _check(self, bundle: Bundle) -> dict[str, float]:
        """Run the smallest file of vectors and compare what was found with PyTorch's stages."""
        names = {tensor.name for tensor in bundle.graph(self._graph.name).inputs}
        fitting = [
            one for one in bundle.manifest.vectors if one.intermediates and names == {t.name for t in one.inputs}
        ]
        if not fitting:
            return {}
        smallest = min(fitting, key=lambda one: one.clips)
        vectors = next(one for one in bundle.vectors() if one.record == smallest)
        known = [stage for stage in self.tensors if stage in stage_names(vectors)]
        values = self._run(vectors.inputs)
        return {stage: stage_difference(values[self.tensors[stage][0]], stage, vectors) for stage in known}

    def _check_differences(self, bundle: Bundle, graph: str) -> None:
        # A lower precision is checked by its masks (`avsbg verify`); here its difference is only reported.
        if bundle.graph(graph).precision != "fp32":
            return
        for stage, difference in self.differences.items():
            if difference > TOLERANCE:
                raise VisualizeError(
                    f"{self.tensors[stage][0]} of the graph {graph} should be {stage}, but differs by {difference:.1e} "
                    "of its largest value from what PyTorch computed on the bundle's vectors.",
                    f"`avsbg verify {bundle.path} --locate` says where it goes wrong.",
                )

    def read(self, inputs: Mapping[str, Array]) -> ClipMaps:
        """Run the network on one clip, whose inputs `avsbg.runtime.media.samples.clip_inputs` makes."""
        values = self._run(inputs)
        frames = inputs["frames"].shape[1]
        maps: dict[str, list[Array]] = {}
        mean: list[Array] = []
        features: list[Array] = []
        for stage, names in self.tensors.items():
            kind = stage.partition(".")[0]
            value = values[names[0]].astype(np.float32)
            if kind == TPAVI:
                maps.setdefault(kind, []).append(_response(value, values[names[1]].astype(np.float32)))
            elif kind == _FEATURES:
                features.append(value)
            else:
                mapped = value.reshape(frames, *value.shape[-2:])
                (mean if kind == _MEAN else maps.setdefault(kind, [])).append(mapped)
        return ClipMaps(values["probability"][0].astype(np.float32), maps, mean, features)


def _response(theta: Array, phi: Array) -> Array:
    """`<theta, phi> / N`, N = T * h * w; theta `[1, C, T, h, w]`, phi `[1, C, T, 1, 1]`. Returns `[T, h, w]`."""
    result: Array = (theta * phi).sum(axis=1)[0] / theta[0, 0].size
    return result


def _missing(bundle: Bundle) -> dict[str, str]:
    variant = bundle.manifest.variant
    record = NETWORKS.get(str(variant["network"]))
    if record is None:  # of another version, which may know more networks
        return {}
    others = {kind: f"{record.title} has none" for kind in (GATE, ATTENTION) if kind not in record.maps}
    without = {
        GATE: ("audio", "the variant has no sound"),
        ATTENTION: ("motion", "the variant has no motion"),
        TPAVI: ("audio", "without sound every position attends to every other, which is no map"),
    }
    off = {kind: reason for kind, (switch, reason) in without.items() if kind in record.maps and not variant[switch]}
    return others | off


class VolumeSlicer:
    """Computes slices of the volume with the operator `CorrelationVolume`, in ONNX Runtime."""

    def __init__(self) -> None:
        self._session = Session(_volume_model().SerializeToString())

    def __call__(self, frame: Array, partner: Array, row: int, column: int) -> Array:
        """Correlate a position of `frame` with all of its partner; both are features `[C, h, w]`.

        Returned is `[h, w]`: `<frame[:, row, column], partner[:, y, x]>`, negative values included. After the ReLU, its
        mean is what the network's mean correlation has at that position.
        """
        a = np.ascontiguousarray(frame[:, row, column], np.float32).reshape(1, 1, -1)
        b = np.ascontiguousarray(partner.reshape(partner.shape[0], -1).T, np.float32)[None]
        volume = self._session.run({"a": a, "b": b}, ["volume"])["volume"]
        return volume.reshape(partner.shape[1:])


def _volume_model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"""
        <ir_version: {_IR_VERSION}, opset_import: ["": {_OPSET}, "{DOMAIN}": {DOMAIN_VERSION}]>
        slice (float[pairs, p, channels] a, float[pairs, q, channels] b) => (float[pairs, p, q] volume) {{
            volume = {DOMAIN}.CorrelationVolume <relu = 0> (a, b)
        }}""")
    model.functions.append(correlation_volume_body(_OPSET))
    return model
