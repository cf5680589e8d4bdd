"""Training on toy data: it learns, it goes on after an interruption as if there had been none, on several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avsbg.model.training.errors import DatasetError, TrainingError
from avsbg.model.training.initialization import RANDOM, initialize_modules
from avsbg.model.training.loop import Training
from avsbg.model.training.objective import Objective
from avsbg.model.training.recipes import Interrupted, Observer, Recipe, Settings, named_recipe
from avsbg.model.training.run_directory import RunDirectory
from avsbg.model.variants import named_variant
from fixtures.avsbench import write_dataset
from fixtures.cli import run_avsbg

VARIANT = named_variant("avs-bg-without-bg", encoder="pvt_v2_b0")
TOY = Recipe("ms3", VARIANT, epochs=2, batch=2, learning_rate=1e-3, audio_visual=0.5, audio_encoder="compact")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six training clips of 32 x 32: three steps of two clips in an epoch."""
    root = tmp_path_factory.mktemp("avsbench")
    for task in ("s4", "ms3"):
        write_dataset(root, task, counts={"train": 6, "val": 2, "test": 2})
    return root


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    from accelerate.state import AcceleratorState

    with torch.enable_grad():
        yield
    AcceleratorState._reset_state(True)


def _train(data, path, *, recipe=TOY, resume=False, observer=None, **settings):
    initial = initialize_modules(recipe, encoder=RANDOM)
    training = Training(recipe, initial, data, RunDirectory(path), settings=Settings(**settings), observer=observer)
    return training.execute(resume=resume)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "last.safetensors") | load_file(path / "last.audio.safetensors")


def _assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def _log(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "whole"
    with torch.enable_grad():
        _train(data, path)
    return path


class StopAt(Observer):
    """Sends this process the signal of Ctrl-C in a step."""

    def __init__(self, step):
        self.step = step

    def stepped(self, step, loss):  # noqa: ARG002
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class CrashAt(Observer):
    """Raises in a step, after the last regular state."""

    def __init__(self, step):
        self.step = step

    def stepped(self, step, loss):  # noqa: ARG002
        if step == self.step:
            raise RuntimeError("power cut")


@pytest.mark.parametrize("step", [1, 3, 4])  # within an epoch, at its end before the scores, in the second
def test_interrupted_and_resumed_is_bit_equal_to_uninterrupted(data, uninterrupted, tmp_path, step):
    path = tmp_path / "run"
    with pytest.raises(Interrupted) as stopped:
        _train(data, path, observer=StopAt(step))
    assert stopped.value.step == step + 1  # the signal arrives in one step, the next one ends with the stop
    result = _train(data, path, resume=True)
    _assert_same(_weights(path), _weights(uninterrupted))
    assert [(row["kind"], row["step"], row.get("loss"), row.get("miou")) for row in _log(path)] == [
        (row["kind"], row["step"], row.get("loss"), row.get("miou")) for row in _log(uninterrupted)
    ]
    assert result.score.miou == max(row["miou"] for row in _log(path) if row["kind"] == "epoch")


def test_a_crash_costs_the_steps_since_the_last_state_and_no_more(data, uninterrupted, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        _train(data, path, observer=CrashAt(6), save_every=2)
    (path / "log.jsonl").open("a").write('{"kind": "step", "st')  # and the log ends in the middle of a row
    _train(data, path, resume=True)
    _assert_same(_weights(path), _weights(uninterrupted))
    assert [row["step"] for row in _log(path)] == [1, 2, 3, 3, 4, 5, 6, 6]


@pytest.mark.slow
def test_the_loss_falls_and_the_best_epoch_is_kept(data, tmp_path):
    recipe = replace(TOY, task="s4", epochs=8, batch=3)
    result = _train(data, tmp_path / "run", recipe=recipe, workers=1)
    rows = _log(tmp_path / "run")
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    scores = [row["miou"] for row in rows if row["kind"] == "epoch"]
    assert result.score.miou == max(scores)
    assert scores[result.epoch - 1] == max(scores)
    command = ["eval", str(tmp_path / "run"), "--data", str(data), "--task", "s4", "--split", "val", "--device", "cpu"]
    scored = run_avsbg(*command, "--json", tmp_path / "scores.json")
    assert scored.code == 0, scored.output
    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["per_clip"]["miou"] == pytest.approx(max(scores), abs=1e-6)
    ran, form = document["model"]["backend"], document["model"]["variant"]["form"]
    assert (ran["device"], ran["operator"]) == ("cpu", form)


def _gradients(data, micro_batch, tmp_path):
    """Of the first step, with batch norms that do not see the batch."""
    initial = initialize_modules(TOY, encoder=RANDOM)
    training = Training(TOY, initial, data, RunDirectory(tmp_path), settings=Settings(micro_batch=micro_batch))
    seen = {}

    def look():
        seen.update({key: p.grad.clone() for key, p in training.objective.named_parameters() if p.grad is not None})
        raise InterruptedError

    training.optimizer.step = look
    with pytest.raises(InterruptedError):
        training.execute()
    return seen


def test_accumulated_gradients_are_those_of_the_whole_batch(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Objective, "train", lambda self, mode=True: torch.nn.Module.train(self, False))  # noqa: ARG005
    whole, parts = _gradients(data, 2, tmp_path / "a"), _gradients(data, 1, tmp_path / "b")
    assert whole.keys() == parts.keys()
    for key, gradient in whole.items():
        torch.testing.assert_close(parts[key], gradient, rtol=1e-3, atol=1e-5)


def test_bf16_trains_and_keeps_fp32_weights(data, tmp_path):
    _train(data, tmp_path / "run", recipe=replace(TOY, epochs=1), precision="bf16")
    floating = [tensor.dtype for tensor in _weights(tmp_path / "run").values() if tensor.is_floating_point()]
    assert set(floating) == {torch.float32}


COMMAND = ["ms3/avs-bg-without-bg", "--encoder", "resnet50", "--audio-encoder", "compact", "--encoder-weights"]
COMMAND += [
    "random",
    "--epochs",
    "1",
    "--batch",
    "2",
    "--learning-rate",
    "1e-3",
    "--loader-workers",
    "0",
    "--device",
    "cpu",
]


def _launch(data: Path, path: Path, processes: int) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    program = [str(Path(sys.executable).with_name("avsbg")), "train", *COMMAND, "--data", str(data), "-o", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launcher, "--no-python", *program], capture_output=True, text=True, timeout=600, env=environment, check=False
    )


@pytest.mark.slow
def test_two_processes_train_one_network(data, tmp_path):
    done = _launch(data, tmp_path / "two", 2)
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "two" / "run.json").read_text())["settings"]
    assert (settings["processes"], settings["micro_batch"]) == (2, 1)
    # Two processes with a clip each do what one does that computes its two clips one after the other. (ResNet-50 has no
    # stochastic depth, whose draws would differ.)
    recipe = replace(TOY, epochs=1, variant=replace(VARIANT, encoder="resnet50"))
    _train(data, tmp_path / "one", recipe=recipe, micro_batch=1)
    together, alone = _log(tmp_path / "two"), _log(tmp_path / "one")
    assert [(row["kind"], row["step"]) for row in together] == [(row["kind"], row["step"]) for row in alone]
    assert together[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-4)
    assert together[1]["loss"] == pytest.approx(alone[1]["loss"], rel=1e-2)


def test_what_cannot_be_trained_is_refused(data, uninterrupted, tmp_path):
    with pytest.raises(TrainingError, match="holds a run already"):
        _train(data, uninterrupted)
    with pytest.raises(TrainingError, match="another recipe"):
        _train(data, uninterrupted, recipe=replace(TOY, seed=1), resume=True)
    with pytest.raises(TrainingError, match="no state to resume"):
        _train(data, tmp_path / "none", resume=True)
    with pytest.raises(TrainingError, match="fp16 trains on a GPU alone"):
        _train(data, tmp_path / "fp16", precision="fp16")
    with pytest.raises(DatasetError, match="there is no s4_meta_data"):
        _train(tmp_path, tmp_path / "data", recipe=replace(TOY, task="s4"))
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="finds no GPU"):
            _train(data, tmp_path / "cuda", device="cuda")


def test_a_loss_that_is_no_number_ends_the_run(data, tmp_path):
    with pytest.raises(TrainingError, match=r"the loss of step \d+ is (nan|inf)"):
        _train(data, tmp_path / "run", recipe=replace(TOY, learning_rate=1e30))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_cannot_be_loaded_is_named(data, tmp_path, workers):
    write_dataset(tmp_path, "ms3")
    (tmp_path / "Multi-sources/ms3_data/gt_masks/train/clip2/clip2_4.png").unlink()
    with pytest.raises(DatasetError, match=r"clip2_4\.png does not exist\. Every clip has") as caught:
        _train(tmp_path, tmp_path / "run", workers=workers)
    assert "Traceback" not in str(caught.value)


def test_damaged_states_are_refused(data, uninterrupted, tmp_path):
    run = RunDirectory(tmp_path)
    whole = (uninterrupted / "state.pt").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no state"):
        run.state.write_bytes(content)
        with pytest.raises(TrainingError, match=r"state\.pt cannot be read"):
            run.read_state()
    for state, reason in (({"format": 0}, "another version"), ({"format": 1}, "lacks audio_encoder")):
        torch.save(state, run.state)
        with pytest.raises(TrainingError, match=reason):
            run.read_state()


def test_the_commands_refuse_what_they_cannot_do(data, tmp_path):
    def error_of(*command: str) -> str:
        return str(run_avsbg(*command, "--data", data).error)

    run = str(tmp_path / "run")
    assert "unknown recipe 's4/x'" in error_of("train", "s4/x", "-o", run)
    assert "--vggish" in error_of("train", "s4/avs-bg", "-o", run, "--encoder-weights", "random")
    assert "--init" in error_of("train", "ms3-from-s4/avs-bg", "-o", run)
    assert "no use for VGGish" in error_of("train", *COMMAND, "-o", run, "--vggish", "x.pth")
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    assert "Name it with --variant" in error_of("eval", str(weights), "--task", "s4")
    assert "--backend does not apply" in error_of("eval", str(weights), "--task", "s4", "--backend", "torch")
    assert "there is no bundle" in error_of("eval", str(tmp_path / "none"), "--task", "s4")


def test_the_recipes_are_listed():
    listed = run_avsbg("train", "--list")
    assert listed.code == 0
    assert "ms3-from-s4/avsbench-without-audio-resnet50" in listed.output
    assert named_recipe("ms3-from-s4/avsbench-without-audio-resnet50").from_s4
