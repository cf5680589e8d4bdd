"""The publications' training recipes by name, the settings of a run, and the schedule of its steps.

The schedule is a function of seed and step alone, so that an interruption loses nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal

import torch

from avsbg.model.audio import AudioEncoderName
from avsbg.model.registry import NETWORKS
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.layout import FRAMES, TASKS, Split, Task
from avsbg.model.training.metrics import Score
from avsbg.model.variants import VARIANTS, Variant, named_variant

Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a network learns, apart from the data and the weights it starts from.

    The optimiser is Adam with PyTorch's betas and no weight decay.

    Attributes:
        batch: clips per step of the optimiser; the last batch of an epoch may be smaller.
        schedule: `constant`, as published, or `cosine`: from the learning rate down to 0 over the whole training.
        audio_visual: lambda, the weight of the audio-visual term.
        latent: eta, the weight of the latent term (networks with bidirectional generation).
        seed: of the initial weights, the order of the clips and stochastic depth.
        from_s4: whether training starts from a network trained on S4 instead of an ImageNet encoder.
        audio_encoder: `vggish`, frozen, as published; or `compact`, small and trained with the network, unless it is
            trained before it.
        audio_epochs: passes over the training split's sound in which the compact audio encoder learns to tell the
            categories before the network is trained; it stays frozen from then on. 0: it is not trained before.
        frames: of each clip, that a step sees, from the first on. On S4 the first frame alone is annotated, and its
            logits depend on the first two frames and on no other; 5, as published, lets batch norms see them all.
        decoded: how many of those frames AVS-BG decodes and the losses see, from the first on; None, as published: all.
        train_encoder: whether the visual encoder learns too, as published, or keeps ImageNet's weights and statistics.
        colour_jitter: whether each clip's colours are changed at random before a step sees it; not published.
        sound_jitter: whether pitch, tempo and spectrum of the sound are changed at random before each step, also of
            the audio encoder's pretraining on categories; not published.
        fusion_gain: factor on the first weights of each of the three convolutions before the fusion's gate. At 1, as
            published, they begin so small that the gate is 0.5 everywhere, and hardly any gradient reaches the sound.
    """

    task: Task
    variant: Variant
    epochs: int
    batch: int
    learning_rate: float = 1e-4
    schedule: Schedule = "constant"
    audio_visual: float = 0.0
    latent: float = 1.0
    seed: int = 42
    from_s4: bool = False
    audio_encoder: AudioEncoderName = "vggish"
    audio_epochs: int = 0
    frames: int = FRAMES
    decoded: int | None = None
    train_encoder: bool = True
    colour_jitter: bool = False
    sound_jitter: bool = False
    fusion_gain: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("learning_rate", "fusion_gain"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} must be positive, not {getattr(self, name)}.")
        if self.audio_epochs and (self.task != "s4" or self.audio_encoder != "compact"):
            raise TrainingError("only the compact audio encoder learns categories, and only S4's clips have one.")
        training = NETWORKS[self.variant.network].training
        if training is None:
            raise TrainingError(f"no recipe trains {self.variant.network}.", "Export its published weights.")
        if self.fusion_gain != 1 and not training.has_gates:
            raise TrainingError(f"fusion_gain is of a fusion's gates; {self.variant.network} has none.")
        if self.decoded is not None and (self.task != "s4" or not training.decodes_part):
            message = "the first frames alone can be decoded on S4, by a network whose masks need no later ones"
            raise TrainingError(f"{message}: not {self.variant.network} on {self.task}.")
        if self.decoded is not None and not 1 <= self.decoded <= self.frames:
            raise TrainingError(f"of {self.frames} frames 1 to {self.frames} can be decoded, not {self.decoded}.")
        least = 2 if self.task == "s4" else FRAMES
        if not least <= self.frames <= FRAMES:
            raise TrainingError(f"a step of {self.task} sees {least} to {FRAMES} frames of a clip, not {self.frames}.")

    @property
    def needs_audio(self) -> bool:
        """Whether training needs audio embeddings: as the network's input or bidirectional generation's target."""
        return self.variant.audio or self.variant.bidirectional

    @property
    def owns_audio_encoder(self) -> bool:
        """Whether the audio encoder's weights are the run's own; VGGish's are a file that exists without it."""
        return self.needs_audio and self.audio_encoder == "compact"

    @property
    def trains_audio_encoder(self) -> bool:
        """Whether the audio encoder is trained together with the network, instead of before it or never."""
        return self.owns_audio_encoder and self.variant.audio and not self.audio_epochs

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a run's record stores them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> Recipe:
        """The reverse of `to_dict`; runs that are older than a field were trained as its default says.

        A `TrainingError` if a field without a default is missing or one is unknown, a `VariantError` of its variant.
        """
        names = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        given = set(record) if isinstance(record, dict) else set()
        if not needed <= given <= names:
            raise TrainingError(f"a recipe has the fields {', '.join(sorted(names))}, not {', '.join(sorted(given))}.")
        return cls(**{**record, "variant": Variant.from_dict(record["variant"])})


def _published(task: Task, variant: Variant) -> Recipe:
    training = NETWORKS[variant.network].training
    assert training is not None
    return Recipe(
        task=task,
        variant=variant,
        epochs=15 if task == "s4" else 30,
        batch=training.batch,
        audio_visual=0.0 if task == "s4" else 0.5,
        seed=training.seed,
    )


_SMALL: dict[str, Any] = {"batch": 8, "learning_rate": 1e-3, "schedule": "cosine"}
_SMALL |= {"audio_visual": 0.5, "audio_encoder": "compact"}
# `s4/avs-bg`, `ms3/avs-bg-without-motion`, `ms3-from-s4/avsbench-resnet50` ...: every row of the paper's Tables 3
# (sound), 4 (motion), 5 (bidirectional generation) and 6 (MS3 from scratch or from S4), with both encoders.
RECIPES: dict[str, Recipe] = {
    **{f"{task}/{name}": _published(task, variant) for task in TASKS for name, variant in VARIANTS.items()},
    **{f"ms3-from-s4/{name}": replace(_published("ms3", variant), from_s4=True) for name, variant in VARIANTS.items()},
    # No publication's: small enough to be trained on a processor.
    "s4/small": Recipe(
        task="s4",
        variant=named_variant("avs-bg", encoder="tf_efficientnet_lite0"),
        epochs=10,
        audio_epochs=4,
        frames=2,
        decoded=1,
        train_encoder=False,
        colour_jitter=True,
        sound_jitter=True,
        fusion_gain=5.0,
        **_SMALL,
    ),
    "ms3/small": Recipe(
        task="ms3", variant=named_variant("avs-bg-without-bg", encoder="tf_efficientnet_lite0"), epochs=6, **_SMALL
    ),
}


def named_recipe(name: str) -> Recipe:
    """The recipe of that name, or a `TrainingError`."""
    if name not in RECIPES:
        hint = "A recipe is s4/VARIANT, ms3/VARIANT or ms3-from-s4/VARIANT; `avsbg train --list` shows them all."
        raise TrainingError(f"unknown recipe {name!r}.", hint)
    return RECIPES[name]


Precision = Literal["fp32", "bf16", "fp16"]


class Interrupted(Exception):  # noqa: N818  (not an error)
    """The run was asked to stop and has saved its state after `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step = step


@dataclass(frozen=True)
class Settings:
    """Everything about a run that its recipe leaves open.

    Attributes:
        micro_batch: clips that one process computes at once; gradients are added up over the step's batch. By default
            the batch divided by the processes. Batch norms see the micro-batch, so it changes what is learnt a little.
        precision: of the network's forward and backward pass; weights, optimiser and losses stay fp32.
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


class Observer:
    """A run's reports of its progress, on the first process alone; override those of interest."""

    def audio_stepped(self, step: int, total_steps: int) -> None:
        """After each step of the audio encoder's pretraining, counted from 1; before `started`."""

    def started(self, step: int, total_steps: int) -> None:
        """Before the first step; `step` steps are done already."""

    def stepped(self, step: int, loss: float) -> None:
        """After each step of the optimiser, counted from 1."""

    def scored(self, epoch: int, score: Score, *, best: bool) -> None:
        """After each epoch, counted from 1: the selecting split's score, and whether it is the best so far."""


@dataclass(frozen=True)
class Result:
    """A finished run's result: the score of the selected epoch on the selecting split, and that epoch (from 1)."""

    score: Score
    epoch: int


@dataclass(frozen=True)
class MicroBatch:
    """The clips that one process computes at once."""

    clips: list[int]  # indices into the data set
    # The part of the step's batch; 0 where a process only takes part in the others' exchange of gradients.
    share: float
    closes_step: bool  # whether the optimiser steps after it


def steps_per_epoch(clips: int, batch: int) -> int:
    """Steps of the optimiser in an epoch; the last batch may be smaller."""
    return math.ceil(clips / batch)


def epoch_batches(clips: int, batch: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch: every clip once, in an order that depends on seed and epoch."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(clips, generator=generator).tolist()
    return [order[i : i + batch] for i in range(0, clips, batch)]


def micro_batches(batches: list[list[int]], size: int, *, rank: int, processes: int) -> Iterator[MicroBatch]:
    """Deal batches out to the processes, of which this one has the number `rank`; `size` clips are computed at once.

    Each process has as many micro-batches, since they wait for each other in every one.
    """
    for batch in batches:
        chunks = [batch[i : i + size * processes] for i in range(0, len(batch), size * processes)]
        for chunk in chunks:
            mine = chunk[rank::processes]
            yield MicroBatch(mine or chunk[:1], len(mine) / len(batch), chunk is chunks[-1])


def learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    """The learning rate of a step, counted from 0."""
    rate = recipe.learning_rate
    return rate if recipe.schedule == "constant" else cosine_rate(rate, step, total_steps)


def cosine_rate(rate: float, step: int, total_steps: int) -> float:
    """A learning rate that falls from `rate` to 0 along half a cosine."""
    return 0.5 * rate * (1.0 + math.cos(math.pi * step / total_steps))
