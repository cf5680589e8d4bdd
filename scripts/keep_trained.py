"""Copy a training run's network into a folder small enough to be kept: filters in float16, the rest in float32.

    python scripts/keep_trained.py RUN model/trained/s4-small

The folder is a run's, so that `avsbg export` and `avsbg eval` take it. run.json gains the files' hashes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from avsbg.atomic import atomic_directory
from avsbg.model.training.run_directory import RunDirectory, read_trained

MOST_BYTES = 16_000_000


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    """Filters and matrices in float16; vectors are few, and a batch norm's variance may leave float16's range."""
    return tensor.half() if tensor.is_floating_point() and tensor.dim() > 1 else tensor


def main(source: Path, target: Path) -> None:
    """Keep the run's best epoch.

    Raises:
        SystemExit: a weight leaves float16's range, or the files are larger than what is kept in a repository.
    """
    trained, record = read_trained(source), RunDirectory(source).read_record()
    with atomic_directory(target) as folder:
        record["kept"] = {}
        for path in filter(None, (trained.weights, trained.audio_weights)):
            tensors = {name: rounded(tensor).contiguous() for name, tensor in load_file(path).items()}
            if lost := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
                sys.exit(f"{path}: {lost[0]} leaves the range of float16; nothing was written")
            save_file(tensors, folder / path.name)
            record["kept"][path.name] = hashlib.sha256((folder / path.name).read_bytes()).hexdigest()
        (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if (size := sum(path.stat().st_size for path in folder.iterdir())) > MOST_BYTES:
            sys.exit(f"{size} bytes are more than the {MOST_BYTES} that are kept; nothing was written")
    print(f"{target}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
