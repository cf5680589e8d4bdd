"""The networks, their operators, variants and checkpoints.

Names are resolved on first use, so that listing the variants does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from avsbg.model.record import NetworkRecord
from avsbg.model.registry import NETWORKS, register_network
from avsbg.model.variants import VARIANTS, Variant, VariantError, named_variant

if TYPE_CHECKING:
    from avsbg.model.audio import AudioEncoder, AudioEncoderName, VGGish, create_audio_encoder
    from avsbg.model.avs_bg import AvsBg, AvsBgStages
    from avsbg.model.avsbench import AvsBench, AvsBenchStages
    from avsbg.model.checkpoint import CheckpointError, LoadReport, load_checkpoint, save_checkpoint
    from avsbg.model.clips import ClipShapeError
    from avsbg.model.factory import (
        ParameterCount,
        build,
        count_parameters,
        create_network,
        fill_from_seed,
        init_deterministic,
    )
    from avsbg.model.front_end import LogMel, WaveformError, log_mel
    from avsbg.model.network import Network
    from avsbg.model.operators import correlation_volume, mean_correlation

_MODULES = ("audio", "avs_bg", "avsbench", "checkpoint", "clips", "factory", "front_end", "network", "operators")

__all__ = [
    "NETWORKS",
    "VARIANTS",
    "AudioEncoder",
    "AudioEncoderName",
    "AvsBench",
    "AvsBenchStages",
    "AvsBg",
    "AvsBgStages",
    "CheckpointError",
    "ClipShapeError",
    "LoadReport",
    "LogMel",
    "Network",
    "NetworkRecord",
    "ParameterCount",
    "VGGish",
    "Variant",
    "VariantError",
    "WaveformError",
    "build",
    "correlation_volume",
    "count_parameters",
    "create_audio_encoder",
    "create_network",
    "fill_from_seed",
    "init_deterministic",
    "load_checkpoint",
    "log_mel",
    "mean_correlation",
    "named_variant",
    "register_network",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            home = import_module(f"{__name__}.{module}")
            if hasattr(home, name):
                return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
