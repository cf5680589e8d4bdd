"""Names of networks, backends, precisions and machines in tables and plots."""

from __future__ import annotations

from collections.abc import Mapping

from avsbg.benchmarks.results.schema import Measurement
from avsbg.model.registry import NETWORKS

_ENCODERS = {
    "pvt_v2": "PVT-v2",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "tf_efficientnet_lite0": "EfficientNet-Lite0",
    "ir_csn_152": "ir-CSN-152",
    "swin_base_patch4_window12_384": "Swin-B",
}
_ENGINES = {
    "torch": "PyTorch eager",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
}
_WAYS = {
    "published": "as published",
    "composite": "composite",
    "function": "operator as ONNX function",
    "native": "native operator",
    "plain": "standard operators",
    "plugin": "operator as plugin",
}


def network_title(variant: Mapping[str, object]) -> str:
    """A network, its encoder and what is switched off, e.g. `AVS-BG, PVT-v2-b5, without motion`."""
    network, encoder = str(variant.get("network", "?")), str(variant.get("encoder", ""))
    record = NETWORKS.get(network)
    parts = [network if record is None else record.title, encoder_title(encoder)]
    for switch in ("audio", "motion"):
        if variant.get(switch) is False and (record is None or switch in record.switches):
            parts.append(f"without {switch}")
    return ", ".join(part for part in parts if part)


def encoder_title(encoder: str) -> str:
    """timm's name of an encoder as the papers write it."""
    for prefix, title in _ENCODERS.items():
        if encoder.startswith(prefix):
            return title + encoder.removeprefix(prefix).replace("_", "-")
    return encoder


def way_title(row: Measurement) -> str:
    """The backend that ran and how it computes the operator, e.g. `ONNX Runtime, native operator`."""
    variant, described = row.ran.variant, row.ran.backend
    backend, operator = str(described.get("backend")), str(described.get("operator"))
    record = NETWORKS.get(str(variant.get("network")))
    ways = _WAYS if record is None else {**_WAYS, "efficient": record.efficient}
    engine = "PyTorch, CUDA graph" if backend == "torch" and described.get("cuda_graph") is True else None
    parts = [engine or _ENGINES.get(backend, backend), ways.get(operator, operator)]
    if backend != "torch" and variant.get("form") == "published":
        parts.append("as published")
    if backend == "torch" and (gpu := described.get("gpu")):
        parts.append(f"on {gpu}")
    return ", ".join(parts)


def precision(row: Measurement) -> str:
    """The precision that ran."""
    return str(row.ran.backend.get("precision") or "fp32")


def weights_title(row: Measurement) -> str:
    """The origin of the weights: training, or the seed that they are drawn with."""
    seed = row.ran.weights.get("seed")
    return "trained" if seed is None else f"random (seed {seed})"


def machine_title(row: Measurement) -> str:
    """The processor that a row was measured on, its cores, and the load of other programs meanwhile, if known."""
    machine, others = row.environment, row.run.others
    assert machine is not None
    load = "load by others unknown" if others is None else f"{others:.0%} of them used by other processes"
    return f"{machine.processor}, {len(machine.cores)} cores, {load}"
