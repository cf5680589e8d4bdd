"""The compact audio encoder learns to tell the categories of S4's training split before a network hears through it.

VGGish, which it stands in for, was trained on sound alone before the publications' networks were; so is this one.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.clips import AUDIO_WIDTH
from avsbg.model.training.augmentation import vary_sound
from avsbg.model.training.data import AvsBenchDataset
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.layout import Split
from avsbg.model.training.recipes import Recipe
from avsbg.model.training.settings import Listener

_PATCHES = 128  # per step
_RATE = 2e-3  # of Adam at the beginning; falls to 0 along a cosine
_SCALE = 10.0  # of a unit vector's logits, which could not tell 33 categories apart without


def learn_categories(encoder: nn.Module, data: Path, recipe: Recipe, listener: Listener) -> float:
    """Train the encoder on the training split's patches through a linear classifier of its unit vectors.

    The classifier sees what the fusion sees: the direction of the embedding, not its length.

    Args:
        encoder: log-mel `[N, 1, 96, 64]` to `[N, 128]`; left in evaluation mode.
        data: the folder of AVSBench.
        recipe: how long, and the seed of the order.
        listener: told of each step.

    Returns:
        the share of the validation split's patches whose category is told.

    Raises:
        DatasetError: a clip cannot be loaded.
        TrainingError: there is one category only.
    """
    patches, names = _patches(data, "train")
    categories = sorted(set(names))
    if len(categories) < 2:
        raise TrainingError(f"sound cannot be told apart by category: all training clips are of {categories[0]!r}.")
    labels = torch.tensor([categories.index(name) for name in names])
    classifier = nn.Linear(AUDIO_WIDTH, len(categories))
    optimizer = torch.optim.Adam([*encoder.parameters(), *classifier.parameters()])
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = [
        batch
        for _ in range(recipe.audio_epochs)
        for batch in torch.randperm(len(labels), generator=generator).split(_PATCHES)
        if len(batch) > 1  # batch norm has nothing to learn from one
    ]
    encoder.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * _RATE * (1.0 + math.cos(math.pi * step / len(batches)))
        heard = vary_sound(patches[batch]) if recipe.sound_jitter else patches[batch]
        loss = F.cross_entropy(_logits(encoder, classifier, heard), labels[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        listener.listened(step + 1, len(batches))
    encoder.eval()
    return _accuracy(encoder, classifier, data, categories)


def _patches(data: Path, split: Split) -> tuple[Tensor, list[str]]:
    """Patches `[N, 1, 96, 64]` of all clips, and each one's category."""
    dataset = AvsBenchDataset(data, "s4", split)
    patches = [dataset.log_mel(clip) for clip in dataset.clips]
    names = [clip.category for clip, of_clip in zip(dataset.clips, patches, strict=True) for _ in of_clip]
    return torch.cat(patches), names


def _logits(encoder: nn.Module, classifier: nn.Linear, patches: Tensor) -> Tensor:
    logits: Tensor = _SCALE * classifier(F.normalize(encoder(patches), dim=1))
    return logits


@torch.no_grad()
def _accuracy(encoder: nn.Module, classifier: nn.Linear, data: Path, categories: list[str]) -> float:
    patches, names = _patches(data, "val")
    told = torch.cat([_logits(encoder, classifier, part).argmax(dim=1) for part in patches.split(_PATCHES)])
    return sum(categories[index] == name for index, name in zip(told.tolist(), names, strict=True)) / len(names)
