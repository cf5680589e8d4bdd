"""The weights that training starts from: the encoder's from ImageNet, a whole network's, VGGish's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avsbg.model import build, create_audio_encoder, load_checkpoint
from avsbg.model.avs_bg import AvsBg
from avsbg.model.avsbench import AvsBench
from avsbg.model.clips import AUDIO_WIDTH
from avsbg.model.encoders import Encoder
from avsbg.model.training.audio_pretraining import learn_categories
from avsbg.model.training.encoder_weights import load_encoder
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.recipes import Recipe
from avsbg.model.training.settings import Listener

IMAGENET, RANDOM, CATEGORIES = "imagenet", "random", "the training split's categories"


class Silence(nn.Module):
    """In the audio encoder's place for networks that do not hear: zeros."""

    def forward(self, log_mel: Tensor) -> Tensor:
        """`[B, T, 1, 96, 64]` to `[B, T, 128]`."""
        return log_mel.new_zeros(*log_mel.shape[:2], AUDIO_WIDTH)


@dataclass(frozen=True)
class Start:
    """Modules ready to be trained, and where their weights come from.

    Attributes:
        origin: what each part's weights are, for the run's record: `random`, `imagenet`, a file name with its
            SHA-256, or what the audio encoder was trained on before.
        audio_accuracy: share of the validation split's patches whose category the audio encoder tells, where it was
            trained on categories here.
    """

    network: AvsBg | AvsBench
    audio_encoder: nn.Module
    origin: dict[str, str]
    audio_accuracy: float | None = None


def start(
    recipe: Recipe,
    *,
    encoder: str,
    network: Path | None = None,
    vggish: Path | None = None,
    audio: Path | None = None,
    data: Path | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> Start:
    """Make the modules of a recipe with their initial weights; random ones depend on the recipe's seed alone.

    Args:
        recipe: what will be trained.
        encoder: `imagenet` (timm's weights, fetched by timm), `random`, or the path of a file as `load_encoder` reads
            it. Without effect where `network` is given.
        network: a checkpoint of the whole network.
        audio: a checkpoint of the compact audio encoder that was trained with it. Without it the recipe decides:
            random weights, or such as have learnt the categories of `data`.
        vggish: VGGish's weights; needed where the recipe's network hears with it.
        data: the folder of AVSBench; needed where the audio encoder learns categories first.
        resume: whether the weights will be replaced by a run's state: then no encoder is fetched or trained.
        listener: told of the audio encoder's training.

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
    if isinstance(module, AvsBg):
        _widen_gates(module, recipe.fusion_gain)
    origin = {}
    if network is not None:
        load_checkpoint(module, network)
        origin["network"] = _named_by_hash(network)
    else:
        source = RANDOM if resume else encoder
        origin["encoder"] = _start_encoder(module.encoder, recipe.variant.encoder, source)
    audio_encoder, origin["audio_encoder"] = _start_audio_encoder(recipe, vggish, audio)
    accuracy = None
    if origin["audio_encoder"] == CATEGORIES and not resume:
        if data is None:
            raise TrainingError("this recipe's audio encoder learns the data's categories; no data is given.")
        accuracy = learn_categories(audio_encoder, data, recipe, listener or Listener())
    return Start(module, audio_encoder, origin, accuracy)


def _widen_gates(network: AvsBg, gain: float) -> None:
    for fusion in network.fusion or ():
        for convolution in fusion.children():
            assert isinstance(convolution, nn.Conv2d)
            convolution.weight.data.mul_(gain)


def _start_audio_encoder(recipe: Recipe, vggish: Path | None, audio: Path | None) -> tuple[nn.Module, str]:
    takes_vggish = recipe.hears and recipe.audio_encoder == "vggish"
    if not takes_vggish and vggish is not None:
        raise TrainingError(f"this recipe has no use for VGGish's weights {vggish}.", "Leave out --vggish.")
    if not recipe.hears:
        return Silence(), "none"
    if not takes_vggish:
        compact = create_audio_encoder("compact")
        if audio is None:
            return compact, CATEGORIES if recipe.audio_epochs else RANDOM
        load_checkpoint(compact, audio)
        return compact, _named_by_hash(audio)
    if vggish is None:
        raise TrainingError(
            "this recipe's network hears through VGGish, whose weights are not given.",
            "Give the public torchvggish release's file with --vggish.",
        )
    module = create_audio_encoder("vggish")
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
