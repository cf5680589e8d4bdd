"""A fitted head on random weights, for benchmarks: `python -m tools.fit_head -o WEIGHTS.safetensors`.

With random weights the logits lie near zero everywhere, so that a reduced precision flips pixels by the thousand, and
an accuracy threshold on the masks says nothing. Here the head alone is fitted to mark the disc in the very clips that a
bundle is verified with: the network costs what it did, and its masks have an inside, an outside and a border, as those
of a pretrained model have. It segments nothing else, and says nothing of a precision's cost in a pretrained model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn import functional

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.export.bundle_writer import VECTOR_CLIPS, VECTOR_SEED
from avsbg.export.graphs import AudioForm, ClipGraph
from avsbg.export.shape import ClipShape
from avsbg.export.vectors import make_marked_clips
from avsbg.model import fill_from_seed, named_variant
from avsbg.model.avs_bg import AvsBg
from avsbg.model.checkpoint import save_checkpoint
from avsbg.runtime.bundle.manifest import ClipRecord
from avsbg.runtime.verify.verify import mask_iou
from tools import command

_AT_ONCE = 4  # frames
_RATE = 2e-3
_WEIGHT = 3.0  # of a disc's pixels, which are few
MIN_IOU = 0.7


def fit_head(network: AvsBg, *, size: int, steps: int) -> float:
    """Fit the head in place to the clips of a bundle's vectors; the IoU over all their pixels afterwards.

    `network` is in evaluation mode on the CPU; everything before its head stays as it is.
    """
    typer.echo("running the network", err=True)
    features, masks = _decoded(network, size)
    first = network.head[0]
    assert isinstance(first, torch.nn.Conv2d)
    with torch.no_grad():  # features of random weights have any scale
        first.weight.div_(features.std())
    optimiser = torch.optim.Adam(network.head.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    order = torch.Generator().manual_seed(0)
    for step in range(steps):
        rows = torch.randint(len(features), (_AT_ONCE,), generator=order)
        logits = network.head(features[rows])[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, masks[rows], pos_weight=torch.tensor(_WEIGHT))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.head.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            typer.echo(f"step {step + 1} of {steps}: loss {loss.item():.3f}", err=True)
    with torch.inference_mode():
        marked = torch.cat([network.head(rows)[:, 0] for rows in features.split(_AT_ONCE)]) > 0
    return float(mask_iou(marked.flatten()[None].numpy(), (masks > 0).flatten()[None].numpy()))


def _decoded(network: AvsBg, size: int) -> tuple[Tensor, Tensor]:
    """The head's input `[N, 128, h, w]` and the discs' masks `[N, H, W]` in the N frames of the vectors."""
    audio = AudioForm.EMBEDDING
    record = ClipRecord(frames=ClipShape().frames, height=size, width=size, audio=audio.value)
    graph = ClipGraph(network, audio, None)
    features, masks = [], []
    for clips in VECTOR_CLIPS:
        inputs, marked = make_marked_clips(audio, record, clips, VECTOR_SEED)
        frames, sound = (torch.from_numpy(array) for array in inputs.values())
        with torch.no_grad():
            features.append(network.forward_stages(*graph.network_inputs(frames, sound)).decoder[-1])
        masks.append(torch.from_numpy(marked).flatten(0, 1).float())
    return torch.cat(features), torch.cat(masks)


@command
def main(
    output: Annotated[Path, typer.Option("-o", "--output", help="The weights, for `avsbg export --checkpoint`.")],
    seed: Annotated[int, typer.Option(help="Of all weights before the head.")] = 2,
    encoder: Annotated[str, typer.Option(help="Of AVS-BG.")] = "pvt_v2_b5",
    size: Annotated[int, typer.Option(min=64, help="Height and width of the frames.")] = 224,
    steps: Annotated[int, typer.Option(min=1, help="Of Adam, each of four frames.")] = 600,
) -> None:
    """Fit the head of a network with random weights, and save the whole."""
    network = AvsBg(named_variant("avs-bg", encoder=encoder)).eval()
    fill_from_seed(network, seed)
    iou = fit_head(network, size=size, steps=steps)
    if iou < MIN_IOU:
        raise BenchmarkError(f"the discs are found with an IoU of {iou:.3f} only.", "Give more --steps.")
    save_checkpoint(network, output)
    typer.echo(f"{output}: the head marks the discs with an IoU of {iou:.3f}")
