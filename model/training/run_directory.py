"""The folder of a training run: its record, its log, its weights, and the state from which it can go on.

RUN/
  run.json            recipe, settings, data, origin of the weights, versions
  log.jsonl           one JSON object per line: the loss of each step, the scores of each epoch
  state.pt            everything needed to go on, replaced as a whole
  best.safetensors    the network of the epoch with the highest mIoU so far
  last.safetensors    the network after the last epoch
  *.audio.safetensors the audio encoder beside it, where it was trained too
  tensorboard/        the same as the log, where TensorBoard is installed
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avsbg.atomic import atomic_file
from avsbg.errors import first_line
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.recipes import Recipe

if TYPE_CHECKING:
    from typing_extensions import Self

_STATE_FORMAT = 1
_STATE = {"identity", "step", "epochs_scored", "best", "network", "audio_encoder", "optimizer", "scaler"}
_STATE |= {"random_numbers", "format"}


class RunDirectory:
    """The files of one run; see the module's docstring."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.record, self.log, self.state = (self.path / name for name in ("run.json", "log.jsonl", "state.pt"))

    def weights(self, which: str) -> Path:
        """Of the network; `which` is `best` or `last`."""
        return self.path / f"{which}.safetensors"

    def audio_weights(self, which: str) -> Path:
        """Of the audio encoder, where it was trained."""
        return self.path / f"{which}.audio.safetensors"

    def create(self, record: dict[str, Any]) -> None:
        """Make the folder and write `run.json`; a `TrainingError` if it holds a run that got as far as a state."""
        if self.state.exists():
            hint = "Go on with it by --resume, or choose another folder."
            raise TrainingError(f"{self.path} holds a run already.", hint)
        with atomic_file(self.record) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def read_record(self) -> dict[str, Any]:
        """Read `run.json`; a `TrainingError` if it is missing or no JSON object."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            hint = "Give the folder that `avsbg train` wrote."
            raise TrainingError(f"{self.record} cannot be read: {error}.", hint) from error
        if not isinstance(record, dict):
            raise TrainingError(f"{self.record} is no JSON object.")
        return record

    def write_state(self, state: dict[str, Any]) -> None:
        """Write `state.pt`: tensors, numbers, strings, lists and mappings."""
        with atomic_file(self.state) as temporary:
            torch.save({**state, "format": _STATE_FORMAT}, temporary)

    def read_state(self) -> dict[str, Any]:
        """Read `state.pt`, of which nothing is executed; a `TrainingError` if it is not one of this version."""
        if not self.state.is_file():
            raise TrainingError(f"{self.path} holds no state to resume from.", "Start it without --resume.")
        try:
            state = torch.load(self.state, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            message = f"the state {self.state} cannot be read: {first_line(error)}."
            raise TrainingError(message, "Start the run again.") from error
        if not isinstance(state, dict) or state.get("format") != _STATE_FORMAT:
            raise TrainingError(f"the state {self.state} is of another version of avsbg.", "Start the run again.")
        if missing := _STATE - set(state):
            raise TrainingError(f"the state {self.state} lacks {min(missing)}.", "Start the run again.")
        return state


class RunLog:
    """Appends rows to `log.jsonl`, and scalars to TensorBoard where it is installed. A context manager."""

    def __init__(self, run: RunDirectory, *, after_step: int, after_epoch: int) -> None:
        """Go on after that step and that scored epoch (0: at the beginning); later rows will be made again."""
        limits = {"step": after_step, "epoch": after_epoch}
        kept = [line for line in _lines(run.log) if _is_within(line, limits)]
        with atomic_file(run.log) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        self._stream = run.log.open("a", encoding="utf-8", buffering=1)
        self._board = _tensorboard(run.path / "tensorboard", after_step)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Write a row; numbers go to TensorBoard under `kind/name` too."""
        self._stream.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        if self._board is not None:
            self._board.close()


def _lines(path: Path) -> list[str]:
    """The complete lines of a file; a last one that was cut short is left out."""
    if not path.is_file():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _is_within(line: str, limits: dict[str, int]) -> bool:
    try:
        row = json.loads(line)
        return bool(row[row["kind"]] <= limits[row["kind"]])
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"the log holds a row that no run wrote: {line.strip()[:80]}", "Remove it.") from error


def _tensorboard(path: Path, after_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path), purge_step=after_step + 1)


@dataclass(frozen=True)
class Trained:
    """A run's network at its best epoch, and the size of the frames that it was trained on."""

    recipe: Recipe
    weights: Path
    audio_weights: Path | None  # the audio encoder's, where it was trained too
    height: int
    width: int


def is_run(path: Path) -> bool:
    """Whether `path` is a folder that `avsbg train` wrote."""
    return RunDirectory(path).record.is_file()


def read_trained(path: Path) -> Trained:
    """Read a finished run's folder; a `TrainingError` if it is none, or no epoch was finished in it."""
    run = RunDirectory(path)
    record = run.read_record()
    recipe = Recipe.from_dict(record.get("recipe"))
    try:
        data = record["data"]["train"]
        height, width = int(data["height"]), int(data["width"])
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{run.record} does not say which size the training frames had.") from error
    if not run.weights("best").is_file():
        hint = "Go on with `avsbg train ... --resume`."
        raise TrainingError(f"{run.path} holds no weights yet: no epoch was finished.", hint)
    needed = recipe.owns_audio_encoder and recipe.variant.audio
    return Trained(recipe, run.weights("best"), run.audio_weights("best") if needed else None, height, width)
