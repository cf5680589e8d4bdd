"""Export: a network in PyTorch becomes a bundle of ONNX graphs that has been checked against it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Export(ModuleType):
    """This package, which can be called as its function `export_network`: `avsbg.export(network, output, ...)`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from avsbg.export.network import export_network

        return export_network(*arguments, **options)


sys.modules[__name__].__class__ = _Export
