"""How a recipe is run, and how a run reports its progress and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avsbg.model.training.layout import Split
from avsbg.model.training.metrics import Score

Precision = Literal["fp32", "bf16", "fp16"]


class Interrupted(Exception):  # noqa: N818  (not an error)
    """The run was asked to stop and has saved its state after `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step


@dataclass(frozen=True)
class Settings:
    """How a recipe is run.

    Attributes:
        micro_batch: clips that one process computes at once; gradients are added up over the step's batch. By default
            the batch divided by the processes. Batch norms see the micro-batch, so it changes what is learnt a little.
        precision: of the network's forward and backward pass; weights, optimiser and losses stay fp32.
        device: `cpu` or `cuda`.
        workers: processes that load clips, per training process.
        save_every: steps between two states; an epoch's end and an interruption save one too.
        select_on: the split whose mIoU chooses the best epoch. AVS-BG's release chooses on `test`, which makes its
            figures of that split optimistic.
    """

    micro_batch: int | None = None
    precision: Precision = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    workers: int = 0
    save_every: int = 100
    select_on: Split = "val"


class Listener:
    """What a run reports while it goes on, on the first process alone; override what you want to know."""

    def listened(self, step: int, total_steps: int) -> None:
        """After each step of the audio encoder's training on categories, counted from 1; before `started`."""

    def started(self, step: int, total_steps: int) -> None:
        """Before the first step; `step` steps are done already."""

    def stepped(self, step: int, loss: float) -> None:
        """After each step of the optimiser, counted from 1."""

    def scored(self, epoch: int, score: Score, *, best: bool) -> None:
        """After each epoch, counted from 1: the selecting split's score, and whether it is the best so far."""


@dataclass(frozen=True)
class Result:
    """Of a finished run: the score of the selected epoch on the selecting split, and that epoch (from 1)."""

    score: Score
    epoch: int
