"""A bundle as a Triton model repository: a folder for each model, with its configuration and what it executes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from avsbg.atomic import atomic_directory
from avsbg.runtime.backends import BackendSpec
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST, TensorRecord
from avsbg.runtime.errors import OutputError
from avsbg.runtime.serving.config import (
    BUNDLE,
    CONFIG,
    FLAGS,
    FRAME,
    TIMESTAMP,
    VALID,
    WARM_UP,
    ServeOptions,
    clip_config,
    parameters,
    render,
    stream_config,
)

VERSION = "1"
_TOLD = (
    TensorRecord(name=VALID, dtype="bool", shape=(1, 1)),
    TensorRecord(name=FRAME, dtype="int64", shape=(1, 1)),
    TensorRecord(name=TIMESTAMP, dtype="float64", shape=(1, 1)),
)
_MODEL = 'from avsbg.runtime.serving.models import {name} as TritonPythonModel\n\n__all__ = ["TritonPythonModel"]\n'


def write_python_repository(
    bundle: Bundle,
    repository: Path,
    options: ServeOptions,
    *,
    backend: str = "onnxruntime",
    threads: int | None = None,
    replace: bool = False,
) -> list[Path]:
    """Write the models that Triton's Python backend runs, which needs avsbg in the server's Python.

    Each model's folder holds the bundle. The stream's is written if the bundle has the graphs.

    Args:
        bundle: an open bundle.
        repository: the folder of models, which may hold others.
        options: the models' settings.
        backend: what executes the graphs, as `BackendSpec` reads it.
        threads: of the backend; None for its choice.
        replace: replace models of the same names.

    Returns:
        the models' folders.

    Raises:
        BackendError: the backend's name is none.
        OutputError: a model of that name is there, or the folder cannot be written.
    """
    BackendSpec.parse(backend)
    executed = {"backend": "python", "parameters": parameters(backend=backend, threads=threads)}
    configs = [("ClipModel", clip_config(bundle.graph("clip"), options, executed))]
    if bundle.manifest.has_stream:
        inputs, outputs = bundle.graph("encode").inputs, (*bundle.graph("decode").outputs, *_TOLD)
        configs.append(("StreamModel", stream_config(inputs, outputs, options, executed)))
    written: list[Path] = []
    for name, config in configs:

        def fill(version: Path, name: str = name) -> None:
            (version / "model.py").write_text(_MODEL.format(name=name), encoding="utf-8")
            if name == "StreamModel":
                write_flags(version.parent)
            # The second model's files are the first one's once more.
            source = written[0] / VERSION / BUNDLE if written else bundle.path
            _copy_bundle(bundle, source, version / BUNDLE, link=bool(written))

        written.append(write_model(repository, config, fill, replace=replace))
    return written


def write_model(repository: Path, config: dict[str, Any], fill: Any, *, replace: bool) -> Path:
    """Write one model's folder, which appears when complete; `fill` is called with the folder of its version.

    Raises:
        OutputError: it is there already, or cannot be written.
    """
    folder = repository / str(config["name"])
    try:
        with atomic_directory(folder, replace=replace) as made:
            (made / VERSION).mkdir()
            fill(made / VERSION)
            (made / CONFIG).write_text(render(config), encoding="utf-8")
    except FileExistsError as error:
        hint = "Choose another --name, or replace it with --overwrite."
        raise OutputError(f"the repository has a model {folder.name} already.", hint) from error
    except OSError as error:
        problem = f"the model {folder} cannot be written: {error.strerror or error}."
        raise OutputError(problem, "Make room, or choose a folder for -o that you may write to.") from error
    return folder


def write_flags(model: Path) -> None:
    """Write the data that a warm-up of streams names."""
    (model / WARM_UP).mkdir()
    for name, content in FLAGS.items():
        (model / WARM_UP / name).write_bytes(content)


def _copy_bundle(bundle: Bundle, source: Path, target: Path, *, link: bool) -> None:
    for name in (MANIFEST, *bundle.manifest.files):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            (os.link if link else shutil.copyfile)(source / name, target / name)
        except OSError:
            if not link:
                raise
            shutil.copyfile(source / name, target / name)  # a file system without links
