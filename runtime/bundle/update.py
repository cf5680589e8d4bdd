"""Adding graphs and engines to a bundle: the new bundle replaces the old one whole, or nothing changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from avsbg.atomic import atomic_directory
from avsbg.runtime.bundle.bundle import Bundle, sha256
from avsbg.runtime.bundle.engine_record import EngineRecord
from avsbg.runtime.bundle.manifest import MANIFEST, FileRecord, GraphRecord, Manifest
from avsbg.runtime.bundle.quantisation_record import QuantisationRecord
from avsbg.runtime.errors import BundleError


@dataclass
class BundleUpdate:
    """A copy of a bundle in the making; made by `update_bundle`.

    Attributes:
        bundle: the old one.
        directory: where the copy is.
        graphs: records to add or replace, by name.
        engines: the same for engines; None removes one.
        quantisations: the same for calibrations, by precision.
    """

    bundle: Bundle
    directory: Path
    graphs: dict[str, GraphRecord] = field(default_factory=dict)
    engines: dict[str, EngineRecord | None] = field(default_factory=dict)
    quantisations: dict[str, QuantisationRecord] = field(default_factory=dict)

    def open(self) -> Bundle:
        """The new bundle as it is now, checked.

        Raises:
            BundleError: it is not valid.
        """
        _write_manifest(self.bundle.manifest, self)
        return Bundle.open(self.directory)


@contextmanager
def update_bundle(bundle: Bundle) -> Iterator[BundleUpdate]:
    """Yield a copy of the bundle to add to; it takes the bundle's place when the block ends without an error.

    Raises:
        BundleError: the bundle was changed by someone else meanwhile, or the result is not valid.
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


def _write_manifest(old: Manifest, update: BundleUpdate) -> None:
    def merged(records: Mapping[Any, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        return {name: record for name, record in {**records, **changes}.items() if record is not None}

    graphs, engines = merged(old.graphs, update.graphs), merged(old.engines, update.engines)
    quantisations = merged(old.quantisations, update.quantisations)
    kept = {record.file for record in old.vectors}
    for graph in graphs.values():
        kept |= graph.files
    for engine in engines.values():
        kept |= {engine.file, engine.layers_file}
    for name in set(old.files) - kept:
        (update.directory / name).unlink(missing_ok=True)
    files = {}
    for file in sorted(path for path in update.directory.rglob("*") if path.is_file()):
        name = file.relative_to(update.directory).as_posix()
        if name == MANIFEST:
            continue
        files[name] = FileRecord(sha256=sha256(file), bytes=file.stat().st_size)
    try:
        manifest = Manifest.model_validate(
            old.model_copy(
                update={"graphs": graphs, "engines": engines, "quantisations": quantisations, "files": files}
            ).model_dump()
        )
    except ValidationError as error:
        raise BundleError(f"the new manifest is not valid: {error}") from error
    (update.directory / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
