"""ONNX Runtime's execution providers: what each is asked for, and the proof that the one asked for runs.

Asked for a provider that cannot start, or that lacks a kernel, ONNX Runtime carries on with the CPU. Here that is an
error: after a session is made, ONNX Runtime is asked which provider each node was given to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from avsbg.runtime.errors import BackendError

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

# Has ONNX Runtime remember which node was given to whom, in versions that can tell.
_RECORD = "session.record_ep_graph_assignment_info"
# Refuses a session with any node on the CPU: stricter than needed, for versions that cannot tell.
_NO_CPU = "session.disable_cpu_ep_fallback"
# Nodes that only compute shapes: the GPU's providers leave them to the CPU on purpose, since their values are needed
# there. None of our graphs' large tensors passes through them.
_SHAPES = frozenset({"Shape", "Size", "Constant", "ConstantOfShape", "Range", "Gather"})

# Optimisations that ONNX Runtime (1.32 at least) breaks off on where an activation with bounds (ReLU6) precedes an fp8
# quantisation. They change no number.
UNFIT_FOR_FP8 = ("ClipQuantRewrite",)


def request_node_assignment(options: Any, provider: str) -> None:
    """Set up `onnxruntime.SessionOptions` so that `check_providers` can tell."""
    if provider != CPU:
        options.add_session_config_entry(_RECORD if _can_tell() else _NO_CPU, "1")


def check_providers(session: Any, provider: str, kernels: Sequence[str] = ()) -> dict[str, int]:
    """Check that an `onnxruntime.InferenceSession` runs on `provider`, or raise a `BackendError` that says why not.

    `kernels` are operators of ours, one of which it must execute as a node, not as a function body. Returns the number
    of nodes each provider was given; empty for the CPU alone, or where this version cannot tell.
    """
    chosen = session.get_providers()
    if chosen[0] != provider:
        raise BackendError(
            f"asked for {provider}, ONNX Runtime chose {', '.join(chosen)}.",
            "The provider could not start: `avsbg doctor` shows the GPU and the driver; CUDA and cuDNN must be those "
            "that onnxruntime-gpu was built for.",
        )
    if provider == CPU or not _can_tell():
        return {}
    counts: Counter[str] = Counter()
    operators: set[str] = set()
    elsewhere: list[str] = []
    for subgraph in session.get_provider_graph_assignment_info():
        for node in subgraph.get_nodes():
            counts[subgraph.ep_name] += 1
            operators.add(node.op_type)
            if subgraph.ep_name != provider and node.op_type not in _SHAPES:
                elsewhere.append(f"{node.op_type} {node.name} on {subgraph.ep_name}")
    if elsewhere:
        more = f" and {len(elsewhere) - 3} more" if len(elsewhere) > 3 else ""
        raise BackendError(
            f"asked for {provider}, ONNX Runtime gave {len(elsewhere)} nodes to another: "
            f"{'; '.join(elsewhere[:3])}{more}.",
            "It has no kernel for them in this graph's precision: use another precision, or the CPU.",
        )
    if kernels and operators.isdisjoint(kernels):
        hint = "Use its implementation `function`, which is that."
        raise BackendError(f"ONNX Runtime executes the function body of {kernels[0]}, not our kernel.", hint)
    return dict(counts)


def provider_list(provider: str, device: int, options: Mapping[str, str] | None) -> list[Any]:
    """The argument `providers` of `InferenceSession`: our defaults, and the user's options over them."""
    defaults = {} if provider == CPU else {"device_id": str(device)}
    if provider == CUDA:
        # ONNX Runtime's default rounds float32 products to tf32, which is a precision of its own here.
        defaults["use_tf32"] = "0"
    chosen = {**defaults, **(options or {})}
    return [(provider, chosen)] if chosen else [provider]


def _can_tell() -> bool:
    import onnxruntime

    return hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")
