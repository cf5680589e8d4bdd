"""A network as a user names it for an export: a variant with checkpoints or a seed, or the folder of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbg.export.shape import ExportError
from avsbg.model.variants import named_variant

if TYPE_CHECKING:
    from avsbg.model import AudioEncoderName, Variant

RUN_RECORD = "run.json"


@dataclass(frozen=True)
class NetworkSource:
    """A network, and the origin of its weights."""

    variant: Variant
    checkpoint: Path | None = None
    audio_checkpoint: Path | None = None
    audio_encoder: AudioEncoderName = "vggish"
    seed: int | None = None
    is_run: bool = False  # of a folder that has its audio encoder's weights too
    size: str = "224"  # of its frames, where nothing else is asked for


def find_source(
    network: str | Path,
    *,
    checkpoint: Path | None = None,
    seed: int | None = None,
    vggish: Path | None = None,
    audio_weights: Path | None = None,
    switches: Mapping[str, Any],
) -> NetworkSource:
    """The network that a user names, with the options of `avsbg export`; an `ExportError` if they contradict it.

    `switches` are those of the variant, None for its own.
    """
    run = Path(network)
    given = {"checkpoint": checkpoint, "seed": seed, "vggish": vggish, "audio-weights": audio_weights}
    if (run / RUN_RECORD).is_file():
        return _of_run(run, {**given, **switches})
    if (checkpoint is None) == (seed is None):
        hint = "--checkpoint FILE takes trained weights, --seed N makes random ones (to measure speed, not to segment)."
        raise ExportError("give exactly one of --checkpoint and --seed.", hint)
    if seed is not None and vggish is not None:
        raise ExportError("--vggish belongs to --checkpoint; with --seed, VGGish's weights are random too.")
    if seed is not None and audio_weights is not None:
        hint = "With --seed the graph holds a random VGGish."
        raise ExportError("--audio-weights belongs to --checkpoint.", hint)
    if vggish is not None and audio_weights is not None:
        raise ExportError("a network has one audio encoder.", "Give --vggish or --audio-weights, not both.")
    chosen = {switch: value for switch, value in switches.items() if value is not None}
    name: AudioEncoderName = "vggish" if audio_weights is None else "compact"
    return NetworkSource(named_variant(str(network), **chosen), checkpoint, vggish or audio_weights, name, seed)


def _of_run(path: Path, given: Mapping[str, Any]) -> NetworkSource:
    """A training run's network."""
    from avsbg.model.training.run_directory import read_trained

    run = read_trained(path)
    unfit = ["checkpoint", "seed", "encoder", "classes", "audio-weights"]
    for name in [*unfit, "vggish"] if run.audio_weights else unfit:
        if given[name] is not None:
            raise ExportError(f"--{name} does not apply to {path}: the run's record says what was trained.")
    own = run.audio_weights is not None
    audio, name = run.audio_weights or given["vggish"], run.recipe.audio_encoder if own else "vggish"
    size = f"{run.height}x{run.width}"
    return NetworkSource(run.recipe.variant, run.weights, audio, name, is_run=own, size=size)
