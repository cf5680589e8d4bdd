"""Dealing clips out: every clip once, whole batches, whatever the number of processes and micro-batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avsbg.model.training.errors import TrainingError
from avsbg.model.training.recipes import (
    RECIPES,
    Recipe,
    epoch_batches,
    learning_rate,
    micro_batches,
    named_recipe,
    steps_per_epoch,
)
from avsbg.model.variants import VARIANTS


@given(
    clips=st.integers(1, 60),
    batch=st.integers(1, 20),
    size=st.integers(1, 20),
    processes=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_each_clip_is_computed_once_and_the_shares_of_a_batch_add_up(clips, batch, size, processes, epoch):
    batches = epoch_batches(clips, batch, seed=7, epoch=epoch)
    assert sorted(index for one in batches for index in one) == list(range(clips))
    assert len(batches) == steps_per_epoch(clips, batch)
    dealt = [list(micro_batches(batches, size, rank=rank, processes=processes)) for rank in range(processes)]
    assert len({len(parts) for parts in dealt}) == 1  # nobody waits for a process that has finished
    step, done, share = 0, [], 0.0
    for parts in zip(*dealt, strict=True):
        assert all(0 < len(part.clips) <= size for part in parts)
        done += [index for part in parts if part.share for index in part.clips]
        share += sum(part.share for part in parts)
        if parts[0].closes_step:
            assert sorted(done) == sorted(batches[step])
            assert share == pytest.approx(1.0)
            step, done, share = step + 1, [], 0.0
    assert step == len(batches)


def test_the_order_depends_on_seed_and_epoch_alone():
    first = epoch_batches(20, 4, seed=1, epoch=0)
    assert first == epoch_batches(20, 4, seed=1, epoch=0)
    assert first != epoch_batches(20, 4, seed=1, epoch=1)
    assert first != epoch_batches(20, 4, seed=2, epoch=0)


def test_learning_rates():
    constant = named_recipe("s4/avs-bg")
    assert {learning_rate(constant, step, 100) for step in range(100)} == {1e-4}
    cosine = replace(constant, schedule="cosine")
    rates = [learning_rate(cosine, step, 100) for step in range(101)]
    assert rates[0] == 1e-4
    assert rates[50] == pytest.approx(0.5e-4)
    assert rates[100] == pytest.approx(0.0)


def test_the_published_recipes():
    published = [name for name in RECIPES if name.split("/")[1] in VARIANTS]
    assert len(published) == 3 * len(VARIANTS)
    for name in published:
        recipe = RECIPES[name]
        assert recipe.learning_rate == 1e-4
        assert recipe.epochs == (15 if recipe.task == "s4" else 30)
        assert recipe.audio_visual == (0.0 if recipe.task == "s4" else 0.5)
        assert (recipe.batch, recipe.seed) == ((12, 42) if recipe.variant.network == "avs-bg" else (4, 123))
        assert recipe.from_s4 == name.startswith("ms3-from-s4/")


def test_recipes_survive_the_run_record():
    for recipe in RECIPES.values():
        assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(TrainingError, match="has the fields"):
        Recipe.from_dict({"task": "s4"})
    with pytest.raises(TrainingError, match="has the fields"):
        Recipe.from_dict({**RECIPES["s4/small"].to_dict(), "momentum": 0.9})
    # A run that is older than a field was trained as its default says.
    old = {key: value for key, value in RECIPES["s4/avs-bg"].to_dict().items() if key != "fusion_gain"}
    assert Recipe.from_dict(old) == RECIPES["s4/avs-bg"]


def test_recipes_that_cannot_be():
    with pytest.raises(TrainingError, match="unknown recipe 's5/avs-bg'"):
        named_recipe("s5/avs-bg")
    for change in ({"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"fusion_gain": -1.0}):
        with pytest.raises(TrainingError, match=str(next(iter(change.values())))):
            replace(named_recipe("s4/avs-bg"), **change)
    with pytest.raises(TrainingError, match="a step of ms3 sees 5 to 5 frames of a clip, not 2"):
        replace(named_recipe("ms3/small"), frames=2)
    with pytest.raises(TrainingError, match="avsbench has none"):
        replace(named_recipe("s4/avsbench"), fusion_gain=5.0)
    with pytest.raises(TrainingError, match="a step of s4 sees 2 to 5 frames of a clip, not 1"):
        replace(named_recipe("s4/small"), frames=1)
    for change in ({"task": "ms3", "frames": 5}, {"audio_encoder": "vggish"}):
        with pytest.raises(TrainingError, match="learns categories"):
            replace(named_recipe("s4/small"), **change)
