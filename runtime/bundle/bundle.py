"""Reading bundles: the directory that the toolchain's parts share.

bundle = Bundle.open(Path("avs-bg.bundle"))
session_file = bundle.file(bundle.graph("clip").file)
"""

from __future__ import annotations

import hashlib
import stat
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.runtime.bundle.engine_record import AccuracyRecord
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import (
    MANIFEST,
    FileRecord,
    GraphRecord,
    Manifest,
    TensorRecord,
    VectorsRecord,
    read_manifest,
)
from avsbg.runtime.errors import BundleError

Arrays = dict[str, NDArray[Any]]

# An .npz is a zip archive and could claim to unpack to anything; real vectors are tens of MB.
MAX_VECTOR_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Vectors:
    """One file of test vectors, loaded: inputs, the PyTorch outputs, and intermediate stages by name."""

    record: VectorsRecord
    inputs: Arrays
    outputs: Arrays
    intermediates: Arrays


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest is valid; its files are checked against their hashes at `open`, or at their first use.

    Attributes:
        path: the directory, which another process may replace by an updated bundle at any time.
        manifest: the bundle's record: graphs, engines, hashes, accuracies.
        manifest_sha256: the hash of the manifest as it was opened; "" if the object was not made by `open`.
    """

    path: Path
    manifest: Manifest
    manifest_sha256: str = ""
    # If hashes are checked when files are first used: the checks that were begun, by file.
    _checks: dict[str, Future[None]] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def open(cls, path: Path, *, defer: bool = False) -> Bundle:
        """Open the bundle in the directory `path` and check every file it lists against its hash, several at a time.

        With `defer`, only sizes are checked now, and the hash of a file when `file` is asked for it, or for the graph
        that it belongs to: what is never loaded costs nothing.

        Raises:
            BundleError: no such directory, a manifest that is not valid, or a file that is missing, is not a regular
                file inside the bundle, or has changed.
        """
        path = Path(path)
        while True:
            before = _identity(path)
            try:
                return cls._open(path, defer=defer)
            except (BundleError, FileNotFoundError):
                # An update puts a new directory in the place of the old one; what was read may be half of each.
                if _identity(path) == before:
                    raise

    @classmethod
    def _open(cls, path: Path, *, defer: bool) -> Bundle:
        if not path.exists():
            raise BundleError(f"there is no bundle at {path}.", "Make one with `avsbg export`.")
        if not path.is_dir():
            raise BundleError(f"{path} is a file, not a bundle.", "A bundle is a directory, made by `avsbg export`.")
        if not (path / MANIFEST).is_file():
            raise BundleError(f"{path} holds no {MANIFEST}, so it is not a bundle.", "Make one with `avsbg export`.")
        digest = sha256(path / MANIFEST)
        manifest = read_manifest(path / MANIFEST)
        if sha256(path / MANIFEST) != digest:
            raise BundleError(f"{path} was changed while it was opened.", "Try again.")
        for name, record in manifest.files.items():
            _check_kind(path, name, record)
        bundle = cls(path, manifest, digest, {})
        if defer:
            return bundle
        bundle.begin_checks(manifest.files)
        for name in manifest.files:
            bundle.file(name)
        return cls(path, manifest, digest)

    def begin_checks(self, names: Iterable[str]) -> None:
        """Begin to hold files against their hashes in threads, where that was deferred; `file` waits for the result."""
        if self._checks is None:
            return
        files = self.manifest.files
        if not (new := set(names) - self._checks.keys()):
            return
        pool = ThreadPoolExecutor(_HASHING_THREADS, thread_name_prefix="avsbg-hash")
        for name in sorted(new, key=lambda name: -files[name].bytes):  # the largest takes the longest
            self._checks[name] = pool.submit(_check_hash, self.path, name, files[name])
        pool.shutdown(wait=False)

    def is_current(self) -> bool:
        """Whether the directory still holds the bundle that was opened, and has not been updated since."""
        return (self.path / MANIFEST).is_file() and sha256(self.path / MANIFEST) == self.manifest_sha256

    def finish_checks(self, graph: str) -> None:
        """Wait for the checks of a graph's files that were begun; a `BundleError` for a file that has changed."""
        for name in self.graph(graph).files & (self._checks or {}).keys():
            (self._checks or {})[name].result()

    def file(self, name: str, *, finish: bool = True) -> Path:
        """The path of a file that the manifest lists; a `BundleError` if it does not, or the file has changed.

        Without `finish` the checks of a graph's weights are only begun: `finish_checks` is to be called before anything
        that was computed of them is given out.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} lists no file {name!r}.", f"It lists: {', '.join(self.manifest.files)}.")
        if self._checks is not None:
            # TensorRT's parser reads the graph's own external data.
            parsed = {engine.graph for engine in self.manifest.engines.values() if engine.parsed_file == name}
            graphs = (one for key, one in self.manifest.graphs.items() if one.file == name or key in parsed)
            needed = {name}.union(*(graph.external_data for graph in graphs))
            self.begin_checks(needed)
            for one in needed if finish else (name,):
                self._checks[one].result()
        return self.path / name

    def graph(self, name: str = "clip") -> GraphRecord:
        """The record of a graph; a `BundleError` if the bundle has none of that name."""
        if name not in self.manifest.graphs:
            raise BundleError(f"{self.path} has no graph {name!r}.", f"It has: {', '.join(self.manifest.graphs)}.")
        return self.manifest.graphs[name]

    def accuracy(self, name: str) -> AccuracyRecord | None:
        """The record of what a graph's precision costs; of a stream's graphs that of the clip graph; None without one.

        The test vectors hold whole clips, so that the two graphs of a stream are not measured on their own.
        """
        clip = self.manifest.graphs.get(str(replace(GraphName.parse(name), role="clip")))
        return self.graph(name).accuracy or (None if clip is None else clip.accuracy)

    def vectors(self) -> Iterator[Vectors]:
        """Load the bundle's test vectors, one by one; a `BundleError` for a file that is not as the manifest says."""
        for record in self.manifest.vectors:
            yield _load_vectors(self.file(record.file), record)


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a directory from the one that later takes its place, which may have the number of one that is gone."""
    try:
        status = path.stat()
        return status.st_ino, status.st_ctime_ns
    except OSError:
        return None


def sha256(path: Path, stop: threading.Event | None = None) -> str:
    """The SHA-256 of a file's content, in hexadecimal; a `CancelledError` if `stop` is set before all is read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            if stop is not None and stop.is_set():
                raise CancelledError(f"the hash of {path} was given up")
            digest.update(block)
    return digest.hexdigest()


_RESTORE = "Restore the bundle from where it was made, or export it again."
_HASHING_THREADS = 4  # hashing leaves the interpreter's lock to others


def _check_kind(bundle: Path, name: str, record: FileRecord) -> None:
    """Check that `name` is a regular file reached without links, of the recorded size."""
    path = bundle
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            hint = f"In a model hub's cache every file is one: `cp -rL {bundle} COPY` copies what they lead to."
            raise BundleError(f"{path} is a symbolic link; a bundle holds its files itself.", hint)
    if not path.exists():
        raise BundleError(f"{name} is missing from the bundle {bundle}.", _RESTORE)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is not a regular file.", _RESTORE)
    if status.st_size != record.bytes:
        changed = f"{status.st_size} bytes, the manifest says {record.bytes}"
        raise BundleError(f"{name} of the bundle {bundle} has changed: {changed}.", _RESTORE)


def _check_hash(bundle: Path, name: str, record: FileRecord) -> None:
    """Check that `name` has the recorded hash."""
    if (found := sha256(bundle / name)) != record.sha256:
        changed = f"its sha256 is {found}, the manifest says {record.sha256}"
        raise BundleError(f"{name} of the bundle {bundle} has changed: {changed}.", _RESTORE)


def _check_headers(path: Path, groups: Mapping[str, Iterable[TensorRecord]]) -> None:
    """Hold what the arrays of an .npz claim to be against the manifest: numpy allocates before it reads."""
    with zipfile.ZipFile(path) as archive:
        for group, tensors in groups.items():
            for tensor in tensors:
                with archive.open(f"{group}.{tensor.name}.npy") as member:
                    old = np.lib.format.read_magic(member) == (1, 0)
                    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(member)
                if (dtype.name, shape) != (tensor.dtype, tensor.shape):
                    wanted = f"the manifest says {tensor.dtype}{list(tensor.shape)}"
                    raise BundleError(f"{path}: {tensor.name} is {dtype}{list(shape)}, {wanted}.")


def _load_vectors(path: Path, record: VectorsRecord) -> Vectors:
    groups = {"inputs": record.inputs, "outputs": record.outputs, "intermediates": record.intermediates}
    loaded: dict[str, Arrays] = {group: {} for group in groups}
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_VECTOR_BYTES:
            raise BundleError(f"{path} would unpack to {unpacked} bytes; at most {MAX_VECTOR_BYTES} are read.")
        _check_headers(path, groups)
        with np.load(path, allow_pickle=False) as archive:
            for group, tensors in groups.items():
                for tensor in tensors:
                    loaded[group][tensor.name] = archive[f"{group}.{tensor.name}"]
    except BundleError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and numpy each have exceptions of their own for damaged bytes
        reason = str(error) or type(error).__name__
        message = f"{path} does not hold the vectors that the manifest lists: {reason}."
        raise BundleError(message, "Export the bundle again.") from error
    return Vectors(record, **loaded)
