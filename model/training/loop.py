"""The training loop: on one process or several, in full or mixed precision, interrupted and resumed at any step.

A run that was interrupted and resumed ends with the same weights, bit for bit on the CPU, as one that was not: the
state holds weights, optimiser, gradient scale, each process's random numbers and the position in the epoch; the order
of the clips and the learning rate are functions of seed and step.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor

from avsbg.model import save_checkpoint
from avsbg.model.registry import NETWORKS
from avsbg.model.training.data import AvsBenchDataset, describe_data, jitter_colours, load_batches, vary_sound
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.evaluation import network_predictor, score_clip
from avsbg.model.training.initialization import InitialModules
from avsbg.model.training.metrics import Score, mean_score
from avsbg.model.training.objective import LossWeights, Objective
from avsbg.model.training.recipes import (
    Interrupted,
    MicroBatch,
    Observer,
    Recipe,
    Result,
    Settings,
    epoch_batches,
    learning_rate,
    micro_batches,
    steps_per_epoch,
)
from avsbg.model.training.run_directory import RunDirectory, RunLog


class Training:
    """One run; `execute` trains to the end."""

    def __init__(
        self,
        recipe: Recipe,
        initial: InitialModules,
        data: Path,
        run: RunDirectory,
        *,
        settings: Settings | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Open the data and put the modules on the device; a `DatasetError` or `TrainingError` if it cannot."""
        self.recipe, self.run, self.initial = recipe, run, initial
        self.settings = settings = settings or Settings()
        self.observer = observer or Observer()
        self.train_set = AvsBenchDataset(data, recipe.task, "train", frames=recipe.frames)
        self.selection_set = AvsBenchDataset(data, recipe.task, settings.select_on)
        self.accelerator = _make_accelerator(recipe, settings)
        self.processes = self.accelerator.num_processes
        self.micro_batch = settings.micro_batch or math.ceil(recipe.batch / self.processes)
        self.objective = Objective(
            initial.network,
            initial.audio_encoder,
            task=recipe.task,
            weights=LossWeights(recipe.audio_visual, recipe.latent),
            train_audio_encoder=recipe.trains_audio_encoder,
            train_encoder=recipe.train_encoder,
            decoded=recipe.decoded,
        )
        learning = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self.model, self.optimizer = self.accelerator.prepare(
            self.objective, torch.optim.Adam(learning, lr=recipe.learning_rate)
        )
        self.steps_per_epoch = steps_per_epoch(len(self.train_set), recipe.batch)
        self.total_steps = recipe.epochs * self.steps_per_epoch
        self.step = self.epochs_scored = 0
        self.best: dict[str, Any] = {"epoch": 0, "miou": -1.0, "f_score": -1.0}
        self._stop = threading.Event()
        # Stochastic depth draws from each process's own numbers; the weights above are the same on all.
        torch.manual_seed(recipe.seed + self.accelerator.process_index)

    def summary(self) -> str:
        """Describe in a line what will run."""
        return (
            f"{len(self.train_set)} clips in batches of {self.recipe.batch} ({self.processes} process(es) x "
            f"{self.micro_batch} clips at once), {self.total_steps} steps in {self.recipe.epochs} epochs, "
            f"{self.settings.precision} on {self.accelerator.device.type}"
        )

    def describe(self) -> dict[str, Any]:
        """The run's record: everything one needs to know what was trained, on what, and how."""
        return {
            "recipe": self.recipe.to_dict(),
            "settings": {**asdict(self.settings), "micro_batch": self.micro_batch, "processes": self.processes},
            "data": {split.split: describe_data(split) for split in (self.train_set, self.selection_set)},
            "weights_from": self.initial.origin,
            "audio_accuracy": self.initial.audio_accuracy,
            "device": torch.cuda.get_device_name() if self.accelerator.device.type == "cuda" else "cpu",
            "versions": {"torch": torch.__version__},
        }

    def execute(self, *, resume: bool = False) -> Result:
        """Train to the end, from the run folder's state if asked to resume.

        `Interrupted` is raised when SIGINT or SIGTERM arrived and the state is saved, a `TrainingError` when the loss
        is no finite number, the folder holds a run already, or its state belongs to another one.
        """
        first = self.accelerator.is_main_process
        if resume:
            self._restore()
        elif first:
            self.run.create(self.describe())
        log_or_none = RunLog(self.run, after_step=self.step, after_epoch=self.epochs_scored) if first else nullcontext()
        with _stop_on_signals(self._stop), log_or_none as log:
            if first:
                self.observer.started(self.step, self.total_steps)
            for epoch in range(self.epochs_scored, self.recipe.epochs):
                self._train_epoch(epoch, log)
                self._score_epoch(epoch, log)
        return Result(Score(self.best["miou"], self.best["f_score"]), self.best["epoch"])

    def _train_epoch(self, epoch: int, log: RunLog | None) -> None:
        self.objective.train()
        batches = epoch_batches(len(self.train_set), self.recipe.batch, seed=self.recipe.seed, epoch=epoch)
        done = self.step - epoch * self.steps_per_epoch
        rank = self.accelerator.process_index
        parts = list(micro_batches(batches[done:], self.micro_batch, rank=rank, processes=self.processes))
        clips, on_gpu = [part.clips for part in parts], self.accelerator.device.type == "cuda"
        loaded = load_batches(self.train_set, clips, workers=self.settings.workers, pin_memory=on_gpu)
        sums = torch.zeros(3, device=self.accelerator.device)
        for part, batch in zip(parts, loaded, strict=True):
            frames = jitter_colours(batch.frames) if self.recipe.colour_jitter else batch.frames
            log_mel = vary_sound(batch.log_mel) if self.recipe.sound_jitter else batch.log_mel
            seen = (tensor.to(self.accelerator.device) for tensor in (frames, log_mel, batch.masks))
            sums += self._accumulate(part, *seen)
            if part.closes_step:
                self._close_step(epoch, sums, log)
                sums.zero_()

    def _accumulate(self, part: MicroBatch, frames: Tensor, log_mel: Tensor, masks: Tensor) -> Tensor:
        """Add one micro-batch's gradients; returns its part of the three terms."""
        with nullcontext() if part.closes_step else self.accelerator.no_sync(self.model):
            terms = self.model(frames, log_mel, masks)
            # Gradients are averaged over the processes, and the parts of a batch have to add up.
            self.accelerator.backward(terms.share_of_batch(part.share) * self.processes)
        sound = terms.audio_visual * float(part.share > 0)
        return torch.stack([part.share * terms.supervision, sound, part.share * terms.latent]).detach()

    def _close_step(self, epoch: int, sums: Tensor, log: RunLog | None) -> None:
        rate = learning_rate(self.recipe, self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # The processes agree on whether to stop: a signal may reach them in different steps.
        stop = torch.tensor([float(self._stop.is_set())], device=sums.device)
        *terms, stopping = self.accelerator.reduce(torch.cat([sums, stop]), reduction="sum").tolist()
        loss = terms[0] + self.recipe.audio_visual * terms[1] + self.recipe.latent * terms[2]
        if not math.isfinite(loss):
            hint = "Lower the learning rate, or train in bf16 or fp32 if this was fp16."
            raise TrainingError(f"the loss of step {self.step + 1} is {loss}; the state before it is kept.", hint)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if log is not None:
            row = dict(zip(("supervision", "audio_visual", "latent"), terms, strict=True))
            log.write("step", self.step, epoch=epoch + 1, loss=loss, **row, learning_rate=rate)
            self.observer.stepped(self.step, loss)
        if stopping:
            self._save()
            raise Interrupted(self.step)
        if self.step % self.settings.save_every == 0:
            self._save()

    def _score_epoch(self, epoch: int, log: RunLog | None) -> None:
        began = time.monotonic()
        self.objective.eval()
        predict = network_predictor(self.objective.network, self.objective.audio_encoder, self.accelerator.device)
        mine = range(self.accelerator.process_index, len(self.selection_set), self.processes)
        scores: list[Score] = gather_object([score_clip(self.selection_set[index], predict) for index in mine])
        score = mean_score(scores)
        best = score.miou > self.best["miou"]
        if best:
            self.best = {"epoch": epoch + 1, **asdict(score)}
        if log is not None:
            row = {"split": self.settings.select_on, **asdict(score), "best": best}
            log.write("epoch", self.step, epoch=epoch + 1, **row, evaluation_seconds=time.monotonic() - began)
            self._save_weights("last")
            if best:
                self._save_weights("best")
            self.observer.scored(epoch + 1, score, best=best)
        self.epochs_scored = epoch + 1
        self._save()

    def _save_weights(self, which: str) -> None:
        save_checkpoint(self.objective.network, self.run.weights(which))
        if self.recipe.owns_audio_encoder:
            save_checkpoint(self.objective.audio_encoder, self.run.audio_weights(which))

    def _identity(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the interrupted one in order to end like it."""
        return {
            "recipe": repr(self.recipe),
            "audio encoder": self.initial.origin["audio_encoder"],
            "training data": describe_data(self.train_set)["sha256"],
            "micro-batch": self.micro_batch,
            "processes": self.processes,
            "precision": self.settings.precision,
            "selecting split": self.settings.select_on,
        }

    def _save(self) -> None:
        device = self.accelerator.device
        numbers = {"cpu": torch.get_rng_state()}
        if device.type == "cuda":
            numbers["cuda"] = torch.cuda.get_rng_state(device)
        all_numbers = gather_object([numbers])
        if self.accelerator.is_main_process:
            scaler, audio_encoder = self.accelerator.scaler, self.objective.audio_encoder
            self.run.write_state(
                {
                    "identity": self._identity(),
                    "step": self.step,
                    "epochs_scored": self.epochs_scored,
                    "best": self.best,
                    "network": self.objective.network.state_dict(),
                    "audio_encoder": audio_encoder.state_dict() if self.recipe.owns_audio_encoder else None,
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": None if scaler is None else scaler.state_dict(),
                    "random_numbers": all_numbers,
                }
            )
        self.accelerator.wait_for_everyone()

    def _restore(self) -> None:
        state = self.run.read_state()
        for name, value in self._identity().items():
            before = state["identity"].get(name)
            if before != value:
                message = f"the run in {self.run.path} was started with another {name}: {before}, not {value}."
                raise TrainingError(message, "Resume it as it was started, or start another run.")
        self.objective.network.load_state_dict(state["network"])
        if self.recipe.owns_audio_encoder:
            self.objective.audio_encoder.load_state_dict(state["audio_encoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        numbers = state["random_numbers"][self.accelerator.process_index]
        torch.set_rng_state(numbers["cpu"])
        if "cuda" in numbers:
            torch.cuda.set_rng_state(numbers["cuda"], self.accelerator.device)
        self.step, self.epochs_scored, self.best = state["step"], state["epochs_scored"], state["best"]


def _make_accelerator(recipe: Recipe, settings: Settings) -> Accelerator:
    """Make Accelerate's engine of this process: device, precision, and the other processes."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("the device cuda was asked for, but PyTorch finds no GPU.", "Use --device cpu.")
    if settings.device == "cpu" and settings.precision == "fp16":
        raise TrainingError("fp16 trains on a GPU alone.", "Use --precision bf16 or fp32 on the CPU.")
    training = NETWORKS[recipe.variant.network].training
    idle = training is not None and training.keeps_sound_layers and not recipe.variant.audio
    return Accelerator(
        cpu=settings.device == "cpu",
        mixed_precision="no" if settings.precision == "fp32" else settings.precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=idle)],
    )


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
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
