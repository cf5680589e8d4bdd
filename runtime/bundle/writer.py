"""Writing bundles: a new one, and one that replaces the old one with graphs and engines added, whole or not at all.

with write_bundle(Path("avs-bg.bundle")) as writer:
    onnx.save(model, writer.directory / "clip.onnx")
    writer.add_vectors(clips=1, seed=0, inputs=..., outputs=..., intermediates=...)
    writer.write_manifest(name="avs-bg", variant=..., weights=..., clip=..., graphs=..., ...)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from avsbg.atomic import atomic_directory
from avsbg.runtime.bundle.bundle import Bundle, sha256
from avsbg.runtime.bundle.engine_record import EngineRecord
from avsbg.runtime.bundle.manifest import MANIFEST, FileRecord, GraphRecord, Manifest, VectorsRecord
from avsbg.runtime.bundle.quantisation_record import QuantisationRecord
from avsbg.runtime.errors import BundleError


class BundleWriter:
    """Collects the files of a new bundle in `directory`; made by `write_bundle`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._vectors: list[VectorsRecord] = []

    def add_vectors(
        self,
        *,
        clips: int,
        seed: int,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        intermediates: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Write `vectors/clips{clips}_seed{seed}.npz` and remember its record for the manifest."""
        groups = {"inputs": inputs, "outputs": outputs, "intermediates": intermediates or {}}
        name = f"vectors/clips{clips}_seed{seed}.npz"
        (self.directory / "vectors").mkdir(exist_ok=True)
        arrays = {f"{group}.{key}": value for group, members in groups.items() for key, value in members.items()}
        np.savez_compressed(self.directory / name, **arrays)  # type: ignore[arg-type]
        records = {
            group: [{"name": key, "dtype": value.dtype.name, "shape": value.shape} for key, value in members.items()]
            for group, members in groups.items()
        }
        self._vectors.append(VectorsRecord.model_validate({"file": name, "clips": clips, "seed": seed, **records}))

    def write_manifest(self, **fields: Any) -> Manifest:
        """Hash every file in `directory` and write `manifest.json`; call it when all files are in place.

        `fields` are those of `Manifest` but `format`, `vectors`, `files` and `created`, which are filled here. Raises a
        `BundleError` if they do not make a valid manifest.
        """
        created = datetime.now(timezone.utc).replace(microsecond=0)
        return _write_manifest(self.directory, {**fields, "vectors": tuple(self._vectors), "created": created})


@contextmanager
def write_bundle(path: Path, *, replace: bool = False) -> Iterator[BundleWriter]:
    """Yield a writer for a new bundle; `path` appears only when the block ends without an error.

    Inside the block, after `write_manifest`, `Bundle.open(writer.directory)` reads the fresh bundle.

    Raises:
        BundleError: `path` exists and `replace` is false, or it exists and is no bundle (and so is never deleted).
        RuntimeError: the block ended without `write_manifest`.
    """
    path = Path(path)
    if path.exists():
        if not replace:
            raise BundleError(f"{path} exists already.", "Choose another path, or replace it with --overwrite.")
        if not (path / MANIFEST).is_file():
            raise BundleError(f"{path} exists and is not a bundle, so it is not replaced.", "Choose another path.")
    with atomic_directory(path, replace=replace) as directory:
        yield BundleWriter(directory)
        if not (directory / MANIFEST).is_file():
            raise RuntimeError("write_bundle: the block ended without write_manifest")


@dataclass
class BundleUpdate:
    """A copy of a bundle in the making; made by `update_bundle`.

    `graphs`, `engines` and `quantisations` are records to add or replace; None removes an engine.
    """

    bundle: Bundle  # the old one
    directory: Path  # of the copy
    graphs: dict[str, GraphRecord] = field(default_factory=dict)
    engines: dict[str, EngineRecord | None] = field(default_factory=dict)
    quantisations: dict[str, QuantisationRecord] = field(default_factory=dict)

    def open(self) -> Bundle:
        """The new bundle as it is now, checked; a `BundleError` if it is not valid."""
        old, directory = self.bundle.manifest, self.directory
        graphs, engines = _merge(old.graphs, self.graphs), _merge(old.engines, self.engines)
        used = {record.file for record in old.vectors}.union(*(graph.files for graph in graphs.values()))
        used = used.union(*(engine.files for engine in engines.values()))
        for name in set(old.files) - used:
            (directory / name).unlink(missing_ok=True)
        quantisations = _merge(old.quantisations, self.quantisations)
        changes = {"graphs": graphs, "engines": engines, "quantisations": quantisations}
        _write_manifest(directory, old.model_copy(update=changes).model_dump())
        return Bundle.open(directory)


@contextmanager
def update_bundle(bundle: Bundle) -> Iterator[BundleUpdate]:
    """Yield a copy of the bundle to add to; it takes the bundle's place when the block ends without an error.

    It is a `BundleError` if the bundle was changed by someone else meanwhile, or the result is not valid.
    """
    path = bundle.path.resolve()
    before = sha256(path / MANIFEST)
    with atomic_directory(path, replace=True) as directory:
        for name in bundle.manifest.files:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            # Not a hard link: onnx refuses external data that has more than one name.
            shutil.copyfile(path / name, directory / name)
        update = BundleUpdate(bundle, directory)
        yield update
        update.open()
        if sha256(path / MANIFEST) != before:
            raise BundleError(
                f"{path} was changed by another process meanwhile; what this one made was not kept.",
                "Build into one bundle from one process at a time, and run this again.",
            )


def copy_bundle(bundle: Bundle, path: Path, *, graphs: Iterable[str]) -> Bundle:
    """Copy a bundle to `path` with these graphs, the test vectors and no engines: all else stays behind.

    The copy says when the bundle was made, not when it was copied, so that copies are the same byte for byte. A
    `BundleError` if a name is none of the bundle's graphs, or `path` exists.
    """
    kept = {name: bundle.graph(name) for name in sorted(graphs)}
    if path.exists():
        raise BundleError(f"{path} exists already.", "Choose another path.")
    old = bundle.manifest
    with atomic_directory(path) as directory:
        for name in {record.file for record in old.vectors}.union(*(graph.files for graph in kept.values())):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.file(name), directory / name)
        precisions = {graph.precision for graph in kept.values()}
        quantisations = {name: record for name, record in old.quantisations.items() if name in precisions}
        changes = {"graphs": kept, "engines": {}, "quantisations": quantisations}
        _write_manifest(directory, old.model_copy(update=changes).model_dump())
    return Bundle.open(path)


def _merge(records: Mapping[Any, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record for name, record in {**records, **changes}.items() if record is not None}


def _write_manifest(directory: Path, fields: Mapping[str, Any]) -> Manifest:
    """Hash every file in `directory` and write the manifest with these fields; `files` is filled here."""
    files = {
        file.relative_to(directory).as_posix(): FileRecord(sha256=sha256(file), bytes=file.stat().st_size)
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file != directory / MANIFEST
    }
    try:
        manifest = Manifest.model_validate({**fields, "files": files})
    except ValidationError as error:
        raise BundleError(f"the new bundle's manifest is not valid: {error}") from error
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest
