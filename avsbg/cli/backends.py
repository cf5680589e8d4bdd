"""What the verbs share: backends by the names that users write, the torch backend included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsbg.runtime.backends import Backend
    from avsbg.runtime.bundle import Bundle

BACKEND_HELP = "onnxruntime or torch"


def create_backend(name: str, bundle: Bundle, **options: Any) -> Backend:
    """`avsbg.runtime.backends.create`, which also knows the backends outside the runtime."""
    from avsbg.runtime import backends

    backends.register("torch", "avsbg.export.torch_backend:TorchBackend")
    return backends.create(name, bundle, **options)
