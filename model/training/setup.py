"""What a training run needs around it: the engine, checks before it starts, and the signals that end it."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from avsbg.model.training.data import AvsBenchDataset
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.recipes import Recipe
from avsbg.model.training.settings import Settings


def make_accelerator(recipe: Recipe, settings: Settings) -> Accelerator:
    """Accelerate's engine for this process: device, precision, and the other processes.

    Raises:
        TrainingError: the device or the precision is not to be had.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("the device cuda was asked for, but PyTorch finds no GPU.", "Use --device cpu.")
    if settings.device == "cpu" and settings.precision == "fp16":
        raise TrainingError("fp16 trains on a GPU alone.", "Use --precision bf16 or fp32 on the CPU.")
    # AVSBench without sound keeps the layer that would align it.
    idle = recipe.variant.network == "avsbench" and not recipe.variant.audio
    return Accelerator(
        cpu=settings.device == "cpu",
        mixed_precision="no" if settings.precision == "fp32" else settings.precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=idle)],
    )


def describe_data(dataset: AvsBenchDataset) -> dict[str, Any]:
    """What a split is, for the run's record. The digest is of the clips' names in their order."""
    names = "\n".join(clip.name for clip in dataset.clips)
    return {
        "clips": len(dataset),
        "height": dataset.height,
        "width": dataset.width,
        "sound": dataset.sound,
        "sha256": hashlib.sha256(names.encode()).hexdigest(),
    }


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Inside the block, SIGINT and SIGTERM ask for a stop instead of ending the process; a second one ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:  # noqa: ARG001
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
