"""Reading and writing weights: the publications' checkpoints and our own `.safetensors`, never unpickled."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avsbg.atomic import atomic_file
from avsbg.errors import AvsbgError
from avsbg.model.published import ignored_keys, published_keys


class CheckpointError(AvsbgError):
    """A checkpoint that cannot be read or does not fit the network.

    Attributes:
        missing: keys that the network needs and the file lacks.
        unexpected: keys in the file that the network has no place for.
        misshaped: key to (shape in the file, shape that the network needs).
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.missing, self.unexpected, self.misshaped = missing, unexpected, dict(misshaped or {})


@dataclass(frozen=True)
class LoadReport:
    """What was read.

    Attributes:
        names: `published` or `avsbg`: whose key names the file has.
        loaded: how many tensors went into the network.
        ignored: keys that are known and not needed: never used by the published model, or switched off here.
    """

    names: str
    loaded: int
    ignored: tuple[str, ...]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The names and tensors of a `.safetensors` file or of a flat state dict, never unpickled.

    Raises:
        CheckpointError: the file is missing, cannot be read, or holds anything else.
    """
    if not path.is_file():
        raise CheckpointError(f"the checkpoint {path} does not exist.", "Give the path of a .pth or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: object = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"the checkpoint {path} holds more than tensors and is not unpickled, since that could run code: "
            f"{str(error).splitlines()[0]}",
            "Save its state dict alone (torch.save(network.state_dict(), ...)) or as .safetensors.",
        ) from error
    except Exception as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"the checkpoint {path} cannot be read: {first_line}", "Is it complete, and a .pth or .safetensors file?"
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(
            f"the checkpoint {path} is not a flat mapping of names to tensors.",
            "The published checkpoints are bare state dicts: save network.state_dict() alone.",
        )
    return {str(key): value for key, value in tensors.items()}


def _listed(label: str, names: list[str]) -> str:
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"{len(names)} {label}: {shown}."


def load_checkpoint(network: nn.Module, path: str | Path) -> LoadReport:
    """Load a checkpoint into `network`, all of it or nothing.

    Args:
        network: of `create_network`, or a `VGGish`.
        path: `.safetensors`, or a flat state dict of PyTorch (`.pth`), with the published key names or our own.

    Returns:
        what was loaded and what was left aside.

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, unexpected or of another shape (by name, in the
            error's attributes too). The network is unchanged then.
    """
    path = Path(path)
    tensors = read_tensors(path)
    own = network.state_dict()
    renamed = published_keys(network)
    is_published = len(set(tensors) & set(renamed.values())) >= len(set(tensors) & set(own))
    source = renamed if is_published else {key: key for key in own}

    wanted = set(source.values())
    ignored = ignored_keys(network, [key for key in tensors if key not in wanted]) if is_published else []
    # Older files of either publication may lack the batch norms' step counters, which inference does not use.
    missing = [name for name in source.values() if name not in tensors and not name.endswith(".num_batches_tracked")]
    unexpected = [key for key in tensors if key not in wanted and key not in set(ignored)]
    misshaped = {
        name: (tuple(tensors[name].shape), tuple(own[key].shape))
        for key, name in source.items()
        if name in tensors and tensors[name].shape != own[key].shape
    }
    if missing or unexpected or misshaped:
        parts = [f"the checkpoint {path} does not fit the network."]
        if missing:
            parts.append(_listed("missing", missing))
        if unexpected:
            parts.append(_listed("unexpected", unexpected))
        if misshaped:
            shapes = [f"{key} {list(found)} instead of {list(needed)}" for key, (found, needed) in misshaped.items()]
            parts.append(_listed("of another shape", shapes))
        raise CheckpointError(
            " ".join(parts),
            "Check the network, the encoder and the switches it was trained with.",
            missing=tuple(missing),
            unexpected=tuple(unexpected),
            misshaped=misshaped,
        )
    network.load_state_dict({key: tensors[name] for key, name in source.items() if name in tensors}, strict=False)
    return LoadReport("published" if is_published else "avsbg", len(own), tuple(ignored))


def save_checkpoint(network: nn.Module, path: str | Path) -> None:
    """Write the network's weights, with our key names, to a `.safetensors` file (complete or not at all).

    Raises:
        CheckpointError: the name does not end in `.safetensors`.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"weights are saved as .safetensors, not {path.name!r}.")
    with atomic_file(path) as temporary:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, temporary)
