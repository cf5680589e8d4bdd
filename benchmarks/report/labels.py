"""Names of networks, backends and precisions in tables and plots."""

from __future__ import annotations

from collections.abc import Mapping

from avsbg.benchmarks.results.schema import Measurement

_NETWORKS = {"avs-bg": "AVS-BG", "avsbench": "AVSBench"}
_ENCODERS = {"pvt_v2": "PVT-v2", "resnet50": "ResNet-50", "tf_efficientnet_lite0": "EfficientNet-Lite0"}
_ENGINES = {
    "torch": "PyTorch eager",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT-RTX",
}
_WAYS = {
    "published": "as published",
    "efficient": "without the volume",
    "function": "operator as ONNX function",
    "native": "native operator",
    "plain": "standard operators",
    "plugin": "operator as plugin",
}
# AVSBench has no volume: what its own algebra avoids is TPAVI's product of every position with every other.
_TPAVI_WAYS = {**_WAYS, "efficient": "without TPAVI's matrix"}


def network_title(variant: Mapping[str, object]) -> str:
    """A network, its encoder and what is switched off, e.g. `AVS-BG, PVT-v2-b5, without motion`."""
    network, encoder = str(variant.get("network", "?")), str(variant.get("encoder", ""))
    parts = [_NETWORKS.get(network, network), encoder_title(encoder)]
    parts += [f"without {switch}" for switch in ("audio", "motion") if variant.get(switch) is False]
    if network == "avsbench" and "without motion" in parts:
        parts.remove("without motion")  # it never had it
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
    ways = _TPAVI_WAYS if variant.get("network") == "avsbench" else _WAYS
    parts = [_ENGINES.get(backend, backend), ways.get(operator, operator)]
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
