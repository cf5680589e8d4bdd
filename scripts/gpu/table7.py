"""Table 7 of the paper on this machine, in PyTorch: AVS-BG and AVSBench as published, composite, with our kernels.

Weights are random, drawn from a formula; inputs are frames and VGGish embeddings in memory, one clip of five seconds.
Each case eagerly and as a CUDA graph of the whole network, timed in turn with the others; peak memory of one call;
the GPU's clocks before and after the samples, and why they were lowered meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import torch
from clocks import Watch

from avsbg.model import NETWORKS, build, init_deterministic, named_variant
from avsbg.model.operators import composite

PRECISIONS = ("fp32", "tf32", "bf16")
OPERATORS = ("published", "composite", "native")


@contextmanager
def computing(precision: str, operator: str, device: str) -> Iterator[None]:
    """PyTorch set to the precision, and its operators on a GPU to the composite unless our kernels are asked for."""
    with ExitStack() as stack:
        kind = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = kind
        torch.backends.cudnn.conv.fp32_precision = kind
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"))
        if operator != "native":
            stack.enter_context(composite())
        yield


def cases(device: str, quick: bool) -> Iterator[dict[str, Any]]:
    """The networks, and each way to compute them."""
    for network in ("avs-bg",) if quick else ("avs-bg", "avsbench"):
        for precision in PRECISIONS if device == "cuda" else ("fp32",):
            for operator in OPERATORS:
                if operator == "native" and ("motion" not in NETWORKS[network].switches or device != "cuda"):
                    continue  # nothing to correlate without motion; our kernels are for GPUs
                encoder = "pvt_v2_b0" if quick else "pvt_v2_b5"
                yield {"network": network, "encoder": encoder, "operator": operator, "precision": precision}


def make(case: dict[str, Any], device: str) -> torch.nn.Module:
    """The network with weights from the formula."""
    form = "published" if case["operator"] == "published" else "efficient"
    network = build(replace(named_variant(case["network"], encoder=case["encoder"]), form=form, bidirectional=False))
    init_deterministic(network, "table7")
    return network.eval().to(device)


def prepare(case: dict[str, Any], inputs: tuple[torch.Tensor, ...], device: str) -> dict[str, measure.Call]:
    """The case's calls by mode; adds its peak memory and its logits' mean to the case."""
    network = make(case, device)

    def call() -> Any:
        with computing(case["precision"], case["operator"], device):
            return network(*inputs)

    call()
    calls = {"eager": call}
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        case["peak_bytes"] = torch.cuda.max_memory_allocated() - before
        try:
            calls["graph"] = measure.capture(call)
        except RuntimeError as error:
            case["graph_failed"] = measure.first_line(error)
    logits = call()
    case["mean_logit"] = logits.float().mean().item()
    return calls


def profile(call: measure.Call, path: Path) -> None:
    """The kernels of one call by the time that they take, as PyTorch's profiler sees them."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        call()
    key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    path.write_text(profiler.key_averages().table(sort_by=key, row_limit=40))


def main() -> None:
    """Measure and write the rows."""
    options = measure.parser(__doc__)
    options.add_argument("--profile", type=Path, help="also write the profile of AVS-BG with our kernels here")
    given = options.parse_args()
    side, rounds = (32, 2) if given.quick else (224, 30)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(1, 5, 3, side, side, generator=generator).to(given.device)
    inputs = (frames, torch.rand(1, 5, 128, generator=generator).to(given.device))
    rows: list[dict[str, Any]] = []
    calls: list[tuple[dict[str, Any], str, measure.Call]] = []
    for case in cases(given.device, given.quick):
        row = {"kind": "table7", "clips": 1, "frames": 5, "side": side, **case}
        rows.append(row)
        try:
            calls += [(row, mode, call) for mode, call in prepare(row, inputs, given.device).items()]
        except Exception as error:  # of one case; the others go on
            row["failed"] = measure.first_line(error)
    watch = Watch(given.device)
    watch.begin()
    samples: dict[tuple[int, str], list[float]] = {(id(row), mode): [] for row, mode, _ in calls}
    for _ in range(rounds):
        for row, mode, call in calls:
            samples[id(row), mode].append(measure.milliseconds(call))
        watch.look()
    state = watch.end()
    for row, mode, _ in calls:
        row.update(state)
        row[f"{mode}_ms"] = measure.summary(samples[id(row), mode])
    measure.write(given.output, rows)
    if given.profile is not None and calls:
        shown = [call for row, mode, call in calls if mode == "eager" and "motion" in NETWORKS[row["network"]].switches]
        profile(shown[-1], given.profile)


if __name__ == "__main__":
    main()
