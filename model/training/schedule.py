"""Which clips each step trains on and at which learning rate: functions of the seed and the step alone.

Nothing here has a state that an interruption could lose.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from avsbg.model.training.recipes import Recipe


@dataclass(frozen=True)
class MicroBatch:
    """What one process computes at once.

    Attributes:
        clips: indices into the data set.
        share: the part of the step's batch that these clips are; 0 where a process has nothing to do and only keeps
            the others company.
        closes_step: whether the optimiser steps after it.
    """

    clips: list[int]
    share: float
    closes_step: bool


def steps_per_epoch(clips: int, batch: int) -> int:
    """How often the optimiser steps in an epoch; the last batch may be smaller."""
    return math.ceil(clips / batch)


def epoch_batches(clips: int, batch: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch: every clip once, in an order that depends on seed and epoch."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(clips, generator=generator).tolist()
    return [order[i : i + batch] for i in range(0, clips, batch)]


def micro_batches(batches: list[list[int]], size: int, *, rank: int, processes: int) -> Iterator[MicroBatch]:
    """Deal batches out to the processes.

    Args:
        batches: of `epoch_batches`.
        size: clips that one process computes at once.
        rank, processes: which of how many.

    Yields:
        as many micro-batches for each process, since processes wait for each other in every one.
    """
    for batch in batches:
        chunks = [batch[i : i + size * processes] for i in range(0, len(batch), size * processes)]
        for chunk in chunks:
            mine = chunk[rank::processes]
            yield MicroBatch(mine or chunk[:1], len(mine) / len(batch), chunk is chunks[-1])


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """The learning rate of a step, counted from 0."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return 0.5 * recipe.learning_rate * (1.0 + math.cos(math.pi * step / total_steps))
