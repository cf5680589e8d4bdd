"""The stages of `avsbg run` up to its first masks, one after the other, in a process that does nothing else.

`start_up.py` runs this file with the time of its start, a bundle, a video and a backend; it prints seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path

began = time.monotonic()
# With all that they import, what `avsbg run` uses for a file.
MODULES = (
    "avsbg.cli",
    "avsbg.cli.run_sources",
    "avsbg.api",
    "avsbg.runtime.segment.model",
    "avsbg.runtime.segment.batch",
)
LIBRARIES = ("onnxruntime", "openvino")


def time_stages(bundle_path: str, video: str, backend: str) -> dict[str, float]:
    """Seconds of each stage."""
    stages: dict[str, float] = {}
    last = began

    def end(stage: str) -> None:
        nonlocal last
        now = time.monotonic()
        stages[stage], last = now - last, now

    for name in (*MODULES, *(library for library in LIBRARIES if backend.startswith(library))):
        import_module(name)
    end("imports")
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.media.container import probe
    from avsbg.runtime.media.samples import clip_inputs, read_clips
    from avsbg.runtime.segment.model import Model

    bundle = Bundle.open(Path(bundle_path), defer=True)
    bundle.file(bundle.graph("clip").file)
    end("hashing")
    with Model(bundle, backend) as model:
        network = model.clip_backend
        end("session")
        clip = next(read_clips(probe(Path(video)), bundle.manifest))
        inputs = clip_inputs(clip, bundle.manifest, network.contract)
        end("reading")
        network.run(inputs, ["probability"])
        end("network")
    return stages


if __name__ == "__main__":
    started, *arguments = sys.argv[1:]
    print(json.dumps({"interpreter": began - float(started), **time_stages(*arguments)}))
