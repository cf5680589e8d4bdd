"""The departures of the recipe `s4/small` from the published ones: pretrained audio, wide gates, two frames."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avsbg.model import create_audio_encoder
from avsbg.model.training.data import jitter_colours, vary_sound
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.initialization import (
    CATEGORIES,
    RANDOM,
    InitialModules,
    initialize_modules,
    pretrain_audio_encoder,
)
from avsbg.model.training.loop import Training
from avsbg.model.training.objective import Objective
from avsbg.model.training.recipes import Interrupted, Observer, named_recipe
from avsbg.model.training.run_directory import RunDirectory
from fixtures.avsbench import write_dataset
from fixtures.cli import run_avsbg

SMALL = named_recipe("s4/small")
TOY = replace(SMALL, variant=replace(SMALL.variant, encoder="pvt_v2_b0"), epochs=2, batch=2, audio_epochs=12)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A high tone belongs to one category, a low tone to the other."""
    return write_dataset(tmp_path_factory.mktemp("avsbench"), "s4", counts={"train": 6, "val": 2, "test": 2})


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    from accelerate.state import AcceleratorState

    with torch.enable_grad():
        yield
    AcceleratorState._reset_state(True)


class AudioSteps(Observer):
    """Notes the steps of the audio encoder's training."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def audio_stepped(self, step, total_steps):
        self.steps.append((step, total_steps))


class StopInFirstStep(Observer):
    """Sends this process the signal of Ctrl-C."""

    def stepped(self, step, loss):  # noqa: ARG002
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)


def _train(data: Path, path: Path, *, resume: bool = False, observer: Observer | None = None) -> InitialModules:
    initial = initialize_modules(TOY, encoder=RANDOM, data=data, resume=resume)
    Training(TOY, initial, data, RunDirectory(path), observer=observer).execute(resume=resume)
    return initial


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory) -> tuple[Path, InitialModules]:
    path = tmp_path_factory.mktemp("runs") / "whole"
    with torch.enable_grad():
        return path, _train(data, path)


def _assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_the_audio_encoder_learns_the_categories_and_training_leaves_it_as_it_is(data, uninterrupted):
    path, trained = uninterrupted
    steps = AudioSteps()
    initial = initialize_modules(TOY, encoder=RANDOM, data=data, observer=steps)
    assert initial.origin["audio_encoder"] == CATEGORIES
    assert initial.audio_accuracy == trained.audio_accuracy == 1.0  # two tones
    assert steps.steps == [(step, 12) for step in range(1, 13)]
    _assert_same(load_file(path / "last.audio.safetensors"), initial.audio_encoder.state_dict())
    assert json.loads((path / "run.json").read_text())["audio_accuracy"] == 1.0


def test_an_audio_encoder_that_has_not_learnt_does_not_tell_them(data):
    untrained = create_audio_encoder("compact")
    assert pretrain_audio_encoder(untrained, data, replace(TOY, audio_epochs=0), Observer()) < 1.0


def test_interrupted_and_resumed_it_ends_the_same(data, uninterrupted, tmp_path):
    with pytest.raises(Interrupted):
        _train(data, tmp_path, observer=StopInFirstStep())
    _train(data, tmp_path, resume=True)
    for name in ("last.safetensors", "last.audio.safetensors"):
        _assert_same(load_file(tmp_path / name), load_file(uninterrupted[0] / name))


def test_a_step_sees_two_frames(data, tmp_path, monkeypatch):
    seen = []
    forward = Objective.forward

    def look(self, frames, log_mel, masks):
        seen.append((frames.shape[1], log_mel.shape[1], masks.shape[1]))
        return forward(self, frames, log_mel, masks)

    monkeypatch.setattr(Objective, "forward", look)
    recipe = replace(TOY, epochs=1, audio_epochs=0)
    Training(recipe, initialize_modules(recipe, encoder=RANDOM), data, RunDirectory(tmp_path)).execute()
    assert seen == [(2, 2, 1)] * 3


def test_the_visual_encoder_keeps_its_weights_and_statistics(uninterrupted):
    path, modules = uninterrupted
    trained = load_file(path / "last.safetensors")
    initial = initialize_modules(TOY, encoder=RANDOM, resume=True).network.state_dict()
    encoder = {key for key in trained if key.startswith("encoder.")}
    assert [key for key in encoder if not torch.equal(trained[key], initial[key])] == []
    assert any(not torch.equal(trained[key], initial[key]) for key in trained.keys() - encoder)
    assert not any(parameter.requires_grad for parameter in modules.network.encoder.parameters())


def test_a_clips_frames_change_their_colours_alike():
    torch.manual_seed(0)
    one = torch.randint(0, 256, (1, 1, 8, 8, 3), dtype=torch.uint8)
    clips = one.repeat(3, 2, 1, 1, 1)
    changed = jitter_colours(clips)
    assert (changed.shape, changed.dtype) == (clips.shape, torch.uint8)
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert not torch.equal(changed[0], clips[0])
    assert not torch.equal(changed[0], changed[1])


def test_sound_is_varied_within_bounds_and_a_clips_patches_alike():
    torch.manual_seed(0)
    tone = torch.zeros(1, 1, 96, 64)
    tone[..., 32] = 10.0
    varied = vary_sound(tone[:, None].repeat(40, 3, 1, 1, 1))
    assert varied.shape == (40, 3, 1, 96, 64)
    assert torch.equal(varied[:, 0], varied[:, 2])
    bins = varied[:, 0].mean(dim=2).argmax(dim=-1)
    assert len(bins.unique()) >= 3 and int((bins - 32).abs().max()) <= 4  # other pitches, not another instrument
    assert varied.mean(dim=(1, 2, 3, 4)).std() > 0.3  # other loudness
    halves = vary_sound(torch.cat([torch.zeros(40, 1, 48, 64), torch.full((40, 1, 48, 64), 10.0)], dim=2)).mean(dim=3)
    begins = (halves.diff(dim=2).argmax(dim=2) - 47).abs()
    assert len(begins.unique()) >= 3 and int(begins.max()) <= 16  # other times


def test_the_network_and_its_audio_encoder_hear_varied_sound(data, tmp_path, monkeypatch):
    from avsbg.model.training import initialization, loop

    def varied(recipe) -> set[tuple[str, int]]:
        calls = set()
        for module in (initialization, loop):
            monkeypatch.setattr(module, "vary_sound", lambda x, name=module.__name__: calls.add((name, x.dim())) or x)
        folder = RunDirectory(tmp_path / f"{recipe.sound_jitter}")
        Training(recipe, initialize_modules(recipe, encoder=RANDOM, data=data), data, folder).execute()
        return calls

    recipe = replace(TOY, epochs=1, audio_epochs=1)
    assert varied(recipe) == {(initialization.__name__, 4), (loop.__name__, 5)}
    assert varied(replace(recipe, sound_jitter=False)) == set()


def test_logits_of_the_first_frame_depend_on_the_first_two_alone():
    network = initialize_modules(replace(TOY, audio_epochs=0), encoder=RANDOM).network
    frames, audio = torch.randn(1, 5, 3, 64, 64), torch.rand(1, 5, 128)
    with torch.no_grad():
        torch.testing.assert_close(network(frames[:, :2], audio[:, :2])[:, 0], network(frames, audio)[:, 0])


@pytest.mark.parametrize("motion", [True, False])
def test_decoding_the_first_frames_alone_gives_their_logits(motion):
    recipe = replace(TOY, variant=replace(TOY.variant, motion=motion), audio_epochs=0)
    network = initialize_modules(recipe, encoder=RANDOM).network.eval()
    frames, audio = torch.randn(2, 4, 3, 64, 64), torch.rand(2, 4, 128)
    with torch.no_grad():
        whole, first = (network.forward_stages(frames, audio, decoded=decoded) for decoded in (None, 3))
    assert first.logits.shape == (2, 3, 64, 64)
    torch.testing.assert_close(first.logits, whole.logits[:, :3])
    rows = [0, 1, 2, 4, 5, 6]
    torch.testing.assert_close(first.audio, whole.audio[rows])
    for name in ("fused", "correlated", "mean_correlation", "correlation_attention"):
        torch.testing.assert_close(getattr(first, name), [stage[rows] for stage in getattr(whole, name)])


def test_all_terms_see_the_decoded_frames(monkeypatch):
    import avsbg.model.training.objective as module

    rows = []
    monkeypatch.setattr(module, "audio_visual_loss", lambda logits, *_, **__: rows.append(len(logits)) or logits.mean())
    monkeypatch.setattr(module, "latent_loss", lambda audio, seen: rows.append((len(audio), len(seen))) or seen.mean())
    initial = initialize_modules(replace(TOY, audio_epochs=0), encoder=RANDOM)
    objective = Objective(
        initial.network, initial.audio_encoder, task="s4", weights=module.LossWeights(0.5), decoded=TOY.decoded
    )
    objective(
        torch.zeros(3, 2, 64, 64, 3, dtype=torch.uint8), torch.zeros(3, 2, 1, 96, 64), torch.zeros(3, 1, 64, 64)
    ).total.backward()
    assert rows == [3, (3, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoded": 3}, "of 2 frames 1 to 2 can be decoded, not 3"),
        ({"decoded": 0}, "of 2 frames 1 to 2 can be decoded, not 0"),
        ({"task": "ms3", "audio_epochs": 0, "frames": 5}, "first frames alone can be decoded on S4.*not avs-bg on ms3"),
    ],
)
def test_frames_that_cannot_be_left_undecoded_are_named(change, message):
    with pytest.raises(TrainingError, match=message):
        replace(TOY, **change)


def test_wide_gates_differ_from_place_to_place():
    frames, audio = torch.randn(1, 2, 3, 64, 64), torch.rand(1, 2, 128)

    def spread(gain: float) -> float:
        network = initialize_modules(replace(TOY, audio_epochs=0, fusion_gain=gain), encoder=RANDOM).network
        with torch.no_grad():
            gates = network.forward_stages(frames, audio).fusion_gate
        return min(float(gate.std()) for gate in gates)

    narrow, wide = spread(1.0), spread(SMALL.fusion_gain)
    assert narrow < 1e-3
    assert wide == pytest.approx(narrow * SMALL.fusion_gain**3, rel=0.2)  # three linear convolutions


def test_one_category_and_no_data_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="no data is given"):
        initialize_modules(TOY, encoder=RANDOM)
    only = write_dataset(tmp_path, "s4", counts={"train": 1, "val": 1, "test": 1})
    with pytest.raises(TrainingError, match="all training clips are of 'red'"):
        initialize_modules(TOY, encoder=RANDOM, data=only)


def test_the_command(data, tmp_path):
    options = ["--data", str(data), "-o", str(tmp_path / "run"), "--encoder-weights", "random", "--epochs", "1"]
    done = run_avsbg("train", "s4/small", *options, "--loader-workers", "0", "--device", "cpu")
    assert done.code == 0, done.output
    scored = run_avsbg("eval", tmp_path / "run", "--data", data, "--task", "s4")
    assert scored.code == 0, scored.output
