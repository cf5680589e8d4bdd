"""The weights that training starts from: the encoder's from ImageNet, a whole network's, VGGish's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avsbg.model import VGGish, build, load_checkpoint
from avsbg.model.avs_bg import AvsBg
from avsbg.model.avsbench import AvsBench
from avsbg.model.clips import AUDIO_WIDTH
from avsbg.model.compact_audio import CompactAudioEncoder
from avsbg.model.encoders import Encoder
from avsbg.model.training.encoder_weights import load_encoder
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.recipes import Recipe

IMAGENET, RANDOM = "imagenet", "random"


class Silence(nn.Module):
    """In the audio encoder's place for networks that do not hear: zeros."""

    def forward(self, log_mel: Tensor) -> Tensor:
        """`[B, T, 1, 96, 64]` to `[B, T, 128]`."""
        return log_mel.new_zeros(*log_mel.shape[:2], AUDIO_WIDTH)


@dataclass(frozen=True)
class Start:
    """Modules ready to be trained, and where their weights come from.

    Attributes:
        origin: what each part's weights are, for the run's record: `random`, `imagenet`, or a file name with its
            SHA-256.
    """

    network: AvsBg | AvsBench
    audio_encoder: nn.Module
    origin: dict[str, str]


def start(recipe: Recipe, *, encoder: str, network: Path | None = None, vggish: Path | None = None) -> Start:
    """Make the modules of a recipe with their initial weights; random ones depend on the recipe's seed alone.

    Args:
        recipe: what will be trained.
        encoder: `imagenet` (timm's weights, fetched by timm), `random`, or the path of a file as `load_encoder` reads
            it. Without effect where `network` is given.
        network: a checkpoint of the whole network.
        vggish: VGGish's weights; needed where the recipe's network hears with it.

    Raises:
        TrainingError: a file that the recipe needs is not given, or one that it has no use for is.
        CheckpointError: a file cannot be read or does not fit.
    """
    if recipe.from_s4 and network is None:
        raise TrainingError(
            "this recipe starts from a network trained on S4.", "Give its checkpoint with --init, or train ms3/... ."
        )
    torch.manual_seed(recipe.seed)
    module = build(recipe.variant)
    origin = {}
    if network is not None:
        load_checkpoint(module, network)
        origin["network"] = _named_by_hash(network)
    else:
        origin["encoder"] = _start_encoder(module.encoder, recipe.variant.encoder, encoder)
    audio_encoder, origin["audio_encoder"] = _start_audio_encoder(recipe, vggish)
    return Start(module, audio_encoder, origin)


def _start_audio_encoder(recipe: Recipe, vggish: Path | None) -> tuple[nn.Module, str]:
    # Bidirectional generation compares with the sound even where the network itself does not hear it.
    hears = recipe.variant.audio or recipe.variant.bidirectional
    takes_vggish = hears and recipe.audio_encoder == "vggish"
    if not takes_vggish and vggish is not None:
        raise TrainingError(f"this recipe has no use for VGGish's weights {vggish}.", "Leave out --vggish.")
    if not hears:
        return Silence(), "none"
    if not takes_vggish:
        return CompactAudioEncoder(), RANDOM
    if vggish is None:
        raise TrainingError(
            "this recipe's network hears through VGGish, whose weights are not given.",
            "Give the public torchvggish release's file with --vggish.",
        )
    module = VGGish()
    load_checkpoint(module, vggish)
    return module.eval(), _named_by_hash(vggish)


def _start_encoder(module: Encoder, name: str, source: str) -> str:
    if source == RANDOM:
        return RANDOM
    if source != IMAGENET:
        load_encoder(module, name, Path(source))
        return _named_by_hash(Path(source))
    try:
        module.load_state_dict(Encoder(name, pretrained=True).state_dict())
    except Exception as error:  # whatever timm's download raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"timm cannot fetch the ImageNet weights of {name}: {reason}.",
            "Give a file with --encoder-weights FILE, or train from --encoder-weights random.",
        ) from error
    return IMAGENET


def _named_by_hash(path: Path) -> str:
    return f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
