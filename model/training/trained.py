"""What a finished training run left behind: which network, its weights, and the size of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avsbg.model.training.errors import TrainingError
from avsbg.model.training.recipes import Recipe
from avsbg.model.training.run_directory import RunDirectory


@dataclass(frozen=True)
class Trained:
    """A run's network at its best epoch.

    Attributes:
        recipe: what was trained.
        weights: the network's checkpoint.
        audio_weights: the audio encoder's, where it was trained too; else None.
        height, width: of the frames that it was trained on.
    """

    recipe: Recipe
    weights: Path
    audio_weights: Path | None
    height: int
    width: int


def is_run(path: Path) -> bool:
    """Whether `path` is a folder that `avsbg train` wrote."""
    return RunDirectory(path).record.is_file()


def read_trained(path: Path) -> Trained:
    """What lies in a run's folder.

    Raises:
        TrainingError: it is none, or no epoch was finished in it.
        VariantError: its record names a variant that does not exist.
    """
    run = RunDirectory(path)
    record = run.read_record()
    recipe = Recipe.from_dict(record.get("recipe"))
    try:
        data = record["data"]["train"]
        height, width = int(data["height"]), int(data["width"])
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{run.record} does not say which size the training frames had.") from error
    if not run.weights("best").is_file():
        raise TrainingError(
            f"{run.path} holds no weights yet: no epoch was finished.", "Go on with `avsbg train ... --resume`."
        )
    own = recipe.audio_encoder == "compact" and recipe.variant.audio
    return Trained(recipe, run.weights("best"), run.audio_weights("best") if own else None, height, width)
