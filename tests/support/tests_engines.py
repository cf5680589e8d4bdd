"""Engines in a bundle that no TensorRT built: records and files that pass every check before deserialising."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.device.gpu import CudaDriver, Gpu

GPU = Gpu("Orin", 87, 8 * 2**30, 8, integrated=True)
DRIVER = CudaDriver("13.0", None, (GPU,))
_MAGIC = {"tensorrt": b"ptrt", "tensorrt-rtx": b"vtrt"}


def passed(miou: float = 1.0, least: float = 0.99) -> dict[str, Any]:
    """An accuracy record with that mean IoU."""
    return {
        "largest_difference": 0.1,
        "flipped": 0.001,
        "miou": miou,
        "least_miou": least,
        "passed": miou >= least,
    }


def add_engine(path: Path, name: str, *, version: str = "10.13.3", **changes: Any) -> Bundle:
    """Add an engine to the bundle at `path`, with what differs from a plain fp16 engine of `clip` for Orin."""
    backend = changes.get("backend", "tensorrt")
    file, layers = f"engines/{name}.engine", f"engines/{name}.layers.json"
    (path / "engines").mkdir(exist_ok=True)
    (path / file).write_bytes(_MAGIC[backend] + name.encode())
    (path / layers).write_text("[]\n")
    document = json.loads((path / MANIFEST).read_text())
    graph = changes.get("graph", "clip.plain")
    shapes = {
        tensor["name"]: [4 if isinstance(size, str) else size for size in tensor["shape"]]
        for tensor in document["graphs"][graph]["inputs"]
    }
    document["engines"][name] = {
        "file": file,
        "layers_file": layers,
        "graph": graph,
        "graph_sha256": sha256(path / document["graphs"][graph]["file"]),
        "backend": backend,
        "operator": "plain",
        "precision": "fp16",
        "realised": {"source": "inspector", "layers": 1, "products": {"fp16": 1}},
        "device": {"compute_capabilities": [87], "name": "Orin" if backend == "tensorrt" else None},
        "profile": {key: {"smallest": s, "optimal": s, "largest": s} for key, s in shapes.items()},
        "options": {},
        "memory": {},
        "versions": {backend: version},
        "build_seconds": 1.0,
        "created": "2026-01-01T00:00:00Z",
        **changes,
    }
    for one in (file, layers):
        document["files"][one] = {"sha256": sha256(path / one), "bytes": (path / one).stat().st_size}
    (path / MANIFEST).write_text(json.dumps(document))
    return Bundle.open(path)
