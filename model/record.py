"""The record of a network: all that export, runtime, benchmarks and docs need to know of it beside its code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Triple = tuple[float, float, float]
Switch = Literal["audio", "motion", "bidirectional"]
EMBEDDING_WIDTH = 128  # of VGGish
# For a key of our state dict, or of a published one: a pattern and what takes the matched part's place.
Rules = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Normalisation:
    """The frames that a network takes: RGB in [0, 1], less `mean`, divided by `std`; by default ImageNet's."""

    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SpectrogramRecord:
    """A network's own sound front end, in place of log-mel patches and VGGish.

    All frames of a clip share its whole sound: the network takes the spectrogram as `[B, 1, *shape(T)]`.
    """

    module: str  # `module:Class`, an `nn.Module` from a waveform `[B, n]` to the spectrogram, `[B, *shape(T)]`
    shape: Callable[[int], tuple[int, int]]  # of the spectrogram of T seconds
    sample_rate: int = 16000  # Hz


@dataclass(frozen=True)
class LatentRecord:
    """An input that depends on neither frames nor sound: `[B, T, width]`, drawn anew for each frame as published.

    Without one, and in graphs, it is zero, the mean of the normal distribution, so that masks are reproducible.
    """

    width: int


@dataclass(frozen=True)
class CheckpointLayout:
    """The keys of a publication's checkpoints, and the weights that a seed makes in their place.

    Numbers and prefixes by encoder have the key `""` for all others.
    """

    renames: Rules = ()  # our key to the published one, the first that matches; keys are else the same
    unit_renames: Rules = ()  # of parts of keys, applied after `renames`
    encoder_prefix: Mapping[str, str] = field(default_factory=dict)  # in place of `encoder.network.`, by encoder
    encoder_renames: Rules = ()  # of what follows it
    aliases: Rules = ()  # published keys that hold a tensor once more, and its own key
    never_used: tuple[str, ...] = ()  # published keys that no mask depends on, as patterns from their beginning on
    never_used_parameters: Mapping[str, int] = field(default_factory=dict)  # their number, by encoder
    never_used_per_class: int = 0  # of further ones
    # Gains of random weights by published key, the first pattern found: activations stay finite and logits spread.
    gains: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class TrainingRecord:
    """A publication's training of its network, and what its parts allow that ours may do beside it."""

    batch: int  # clips per step
    seed: int
    has_gates: bool = False  # whether a gate decides how much of the sound is fused, whose gain a recipe may raise
    decodes_part: bool = False  # whether the masks of the first frames need no later ones than the next
    keeps_sound_layers: bool = False  # whether a variant without sound has layers that nothing then uses


@dataclass(frozen=True)
class Scores:
    """Scores of a publication on one task of AVSBench."""

    miou: float  # per cent
    f_score: float


@dataclass(frozen=True)
class NetworkRecord:
    """A network: its file, what it takes, how its masks are made, and what was published of it.

    Attributes:
        name: of `create_network`.
        title: in tables.
        task: `AVS`, `SSL` (sound source localisation), `VOS` (video object segmentation) or `SOD` (salient objects).
        source: the paper, and the repository at the commit that was reimplemented.
        module: `module:Class`, a `Network` made from a `Variant`; None where nothing was released.
        encoders: the visual encoders it is defined for, the default first.
        classes: the numbers of classes; 1 stands for binary masks.
        labels: the names of several classes, the background first.
        switches: the switches of `Variant` that can be turned on.
        optional: those of them that can be turned off.
        normalisation: of the frames.
        spectrogram: its own front end of the sound; None for VGGish's.
        latent: its further input, if it has one.
        efficient: what distinguishes the form `efficient` from the one that computes as released.
        mask: how `Network.probability` makes a mask of logits.
        min_frames: of a clip.
        mixes_frames: why a mask needs frames of its clip beside its own and the next, so that the network cannot be
            streamed; None where it can.
        checkpoint: the layout of its published files.
        maps: the kinds of attention maps in it, by the names of `avsbg visualize`.
        training: how it is trained; None where no recipe of ours does.
        scores: published scores by (encoder, task), the task `s4` or `ms3`.
        unreleased: why there is no network under this name.
    """

    name: str
    title: str
    task: Literal["AVS", "SSL", "VOS", "SOD"]
    source: str
    module: str | None
    encoders: tuple[str, ...] = ()
    classes: tuple[int, ...] = (1,)
    labels: tuple[str, ...] = ()
    switches: tuple[Switch, ...] = ()
    optional: tuple[Switch, ...] = ()
    normalisation: Normalisation = Normalisation()
    spectrogram: SpectrogramRecord | None = None
    latent: LatentRecord | None = None
    efficient: str = "in the cheaper order"
    mask: str = "sigmoid(logits)"
    min_frames: int = 1
    mixes_frames: str | None = None
    checkpoint: CheckpointLayout = CheckpointLayout()
    maps: tuple[str, ...] = ()
    training: TrainingRecord | None = None
    scores: Mapping[tuple[str, str], Scores] = field(default_factory=dict)
    unreleased: str | None = None

    @property
    def takes_embeddings(self) -> bool:
        """Whether it takes the audio embeddings of VGGish, or of an encoder in its place."""
        return "audio" in self.switches and self.spectrogram is None

    @property
    def published_encoders(self) -> tuple[str, ...]:
        """The encoders that scores were published with, in their order; the first where scores name none."""
        return tuple(dict.fromkeys(encoder for encoder, _ in self.scores if encoder)) or self.encoders[:1]

    def find_scores(self, encoder: str, task: str) -> Scores | None:
        """The published scores on a task with an encoder, or where the publication names none."""
        return self.scores.get((encoder, task), self.scores.get(("", task)))

    def sound_shape(self, frames: int) -> tuple[int, ...] | None:
        """The shape of one clip's sound as `forward` takes it, `[T, 128]` of embeddings; None if it takes none."""
        if self.spectrogram is not None:
            return (1, *self.spectrogram.shape(frames))
        return (frames, EMBEDDING_WIDTH) if self.takes_embeddings else None
