"""avsbg: audio-visual segmentation networks, from a PyTorch checkpoint to an NVIDIA edge device.

Its Python interface: `load` and `verify` (`avsbg.api`), and `export` (`avsbg.export.network`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsbg.api import load, verify
    from avsbg.export.network import export_network as export

__all__ = ["export", "load", "verify"]
__version__ = "0.1.0"

# Nothing is reported to anyone: ONNX Runtime from 1.29 on, Ray and gradio do so by default. Each reads its variable
# when it is first used; a value that is set already stays.
for _name, _value in {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:
    """Import the interface when it is first used: the command line answers `--help` without it."""
    if name in ("load", "verify"):
        from avsbg import api

        return getattr(api, name)
    if name == "export":  # the package, which can be called
        from importlib import import_module

        return import_module("avsbg.export")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
