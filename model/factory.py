"""Making networks: by name and switches, with weights from a seed, and counting their parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import nn

from avsbg.model.network import Network
from avsbg.model.published import ignored_keys, layout_of, never_used_parameters, published_keys
from avsbg.model.variants import Variant, find_network, named_variant


def create_network(name: str, **switches: Any) -> Network:
    """Build a network in evaluation mode; its weights are whatever PyTorch initialises them with.

    Args:
        name: a network of `avsbg.model.NETWORKS`, or a named variant of `avsbg.model.VARIANTS`.
        switches: fields of `Variant` that differ from the named one: `encoder`, `audio`, `motion`, `bidirectional`,
            `form`, `classes`.

    Returns:
        a module whose forward takes frames `[B, T, 3, H, W]`, normalised as its record says, and sound in its record's
        form, by default audio embeddings `[B, T, 128]`, and returns logits `[B, T, H, W]`.

    Raises:
        VariantError: no such name or switch.
    """
    return build(named_variant(name, **switches))


def build(variant: Variant) -> Network:
    """Build the network of a variant record, in evaluation mode."""
    network: Network = load_object(str(find_network(variant.network).module))(variant)
    return network.eval()


def load_object(name: str) -> Any:
    """The object that a record names as `module:object`, imported now."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


# Gains on the published keys of AVS-BG, AVSBench and VGGish that keep activations finite, gates unsaturated and logits
# spread over both signs.
_GAINS = (
    (r"\.attn\.proj\.weight$", 0.25),
    (r"^fusion_modules\.\d\.conv\d\.conv\.weight$", 4.0),
    (r"^mask_encoder\.\d\.conv\.weight$", 3.0),
    (r"^decoder\.head_up_2\.output_conv\.4\.weight$", 5.0),
    (r"^tpavi_b\d\.(theta|phi)\.weight$", 0.5),
    (r"^conv\d\.conv2d_list\.\d\.weight$", 0.5),
    (r"^(features|embeddings)\.\d+\.weight$", 1.5),
)


def formula_tensor(
    key: str, shape: tuple[int, ...], salt: str, gains: Iterable[tuple[str, float]] = _GAINS
) -> np.ndarray:
    """The value that the formula gives to one published key: the same on every machine and with every version.

    A fresh PCG64 generator per tensor, seeded by the CRC-32 of `salt:key`; drawn in float64. The first pattern of
    `gains` that is found in the key scales its weights.
    """
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    rng = np.random.Generator(np.random.PCG64(crc32(f"{salt}:{key}".encode())))
    if leaf == "running_var":
        values = 1.0 + 0.5 * rng.random(shape)
    elif leaf == "running_mean":
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) >= 2 and prod(shape) > 1:
        gain = next((gain for pattern, gain in gains if re.search(pattern, key)), 1.0)
        values = rng.standard_normal(shape) * (gain / np.sqrt(prod(shape[1:])))
    elif leaf == "weight":
        values = 1.0 + 0.1 * rng.standard_normal(shape)
    else:
        values = 0.1 * rng.standard_normal(shape)
    return values.astype(np.float32)


def init_deterministic(network: nn.Module, salt: str) -> None:
    """Give every parameter and buffer of a network (or a `VGGish`) the formula's values for `salt`, in place."""
    state, gains = network.state_dict(), layout_of(network).gains or _GAINS
    with torch.no_grad():
        for key, name in published_keys(network).items():
            state[key].copy_(torch.from_numpy(formula_tensor(name, tuple(state[key].shape), salt, gains)))


def fill_from_seed(network: nn.Module, seed: int) -> None:
    """Give a network random weights that depend on `seed` alone, in place. They segment nothing; they measure speed."""
    init_deterministic(network, f"avsbg-seed-{seed}")


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a network, VGGish not included."""

    published: int  # as the publications count them, never-used ones included
    trained: int  # those that training updates
    inference: int  # those that a mask depends on; exported graphs carry these


def count_parameters(network: Network) -> ParameterCount:
    """Count the parameters of a network."""
    names = published_keys(network)
    unused = set(ignored_keys(network, names.values()))  # the form `published` has some of them
    trained = sum(one.numel() for key, one in network.named_parameters() if names[key] not in unused)
    projection = getattr(network, "visual_to_audio", None)  # of bidirectional generation
    for_training_only = 0 if projection is None else sum(parameter.numel() for parameter in projection.parameters())
    return ParameterCount(trained + never_used_parameters(network), trained, trained - for_training_only)
