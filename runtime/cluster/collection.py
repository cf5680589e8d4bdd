"""The videos of a collection: folders, files, lists and tables of paths and addresses, each with a name for its output.

An address is what fsspec opens (`s3://`, `gs://`, `https://`, ...): https://filesystem-spec.readthedocs.io.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from avsbg.errors import first_line
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.sources import VIDEO_SUFFIXES, list_videos

LISTS, TABLES = (".txt", ".list"), (".csv", ".parquet")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True)
class CollectionItem:
    """A video of a collection."""

    source: str  # an absolute path, since workers of a cluster have another working directory, or an address
    name: str  # of its output, a path in the collection's; unique in it


def is_address(text: str) -> bool:
    """Whether a text is an address, and not a path."""
    return _ADDRESS.match(text) is not None


def check_addresses(addresses: Iterable[str]) -> None:
    """Check that this machine can open addresses of these kinds; paths are passed over.

    Raises:
        MediaError: fsspec, or the package that it needs for one, is not installed, or there is no such kind.
    """
    for kind, address in {one.partition("://")[0]: one for one in addresses if is_address(one)}.items():
        try:
            import fsspec

            fsspec.get_filesystem_class(kind)
        except (ImportError, ValueError) as error:  # fsspec's message names the package
            hint = "`pip install 'avsbg[cluster]'` has what https:// needs, s3:// needs s3fs too, and gs:// gcsfs."
            raise MediaError(f"{address} cannot be opened here: {first_line(error)}.", hint) from error


def list_collection(sources: Sequence[str], column: str = "video") -> list[CollectionItem]:
    """The videos of a collection, in order.

    Args:
        sources: videos, addresses of videos, folders, lists (`.txt`, one path or address a line, `#` before comments)
            and tables (`.csv`, `.parquet`).
        column: of tables, that of the paths and addresses.

    Raises:
        MediaError: there is no such source, a table has no such column, nothing was found, or a video is named twice.
    """
    found: list[CollectionItem] = []
    for source in sources:
        path = Path(source)
        if is_address(source):
            found += _named([source])
        elif path.is_dir():
            videos = list_videos(path)
            if not videos:
                hint = f"Looked for: {', '.join(sorted(VIDEO_SUFFIXES))}."
                raise MediaError(f"the folder {path} holds no video.", hint)
            found += [CollectionItem(str(one.absolute()), one.relative_to(path).as_posix()) for one in videos]
        elif not path.exists():
            raise MediaError(f"there is no video, folder, list or table at {path}.")
        elif path.suffix.lower() in LISTS:
            found += _named(_read_list(path))
        elif path.suffix.lower() in TABLES:
            found += _named(_read_table(path, column))
        else:
            found += _named([source])
    if not found:
        raise MediaError(f"{', '.join(sources)} name no video.")
    by_name: dict[str, CollectionItem] = {}
    for item in found:
        if (other := by_name.setdefault(item.name, item)) is not item:
            hint = "Name each video once; folders whose videos share names need runs of their own."
            raise MediaError(f"{other.source} and {item.source} would both be written to {item.name}.", hint)
    return found


def _named(texts: Sequence[str]) -> list[CollectionItem]:
    """Videos with their names: their paths from the folder on that holds all of them."""
    # Not resolved: a link keeps its name.
    sources = [text if is_address(text) else str(Path(text).absolute()) for text in texts]
    # Without `..`, by which a name would lead out of the output.
    paths = [PurePosixPath(os.path.normpath(_place(one) if is_address(one) else one)) for one in sources]
    for one, path in zip(sources, paths, strict=True):
        if path == path.parent:
            raise MediaError(f"{one} names no video.")
    if not paths:
        return []
    common = os.path.commonpath([path.parent for path in paths])
    return [CollectionItem(one, path.relative_to(common).as_posix()) for one, path in zip(sources, paths, strict=True)]


def _place(address: str) -> str:
    return "/" + _ADDRESS.sub("", address).partition("?")[0].lstrip("/")


def _read_list(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"the list {path} cannot be read: {error}.") from error
    return [_beside(path, line) for line in lines if line and not line.startswith("#")]


def _read_table(path: Path, column: str) -> list[str]:
    from pyarrow import ArrowException, csv, parquet

    try:
        table = parquet.read_table(path) if path.suffix.lower() == ".parquet" else csv.read_csv(path)
    except (OSError, ArrowException) as error:
        raise MediaError(f"the table {path} cannot be read: {error}.") from error
    if column not in table.column_names:
        hint = f"It has: {', '.join(table.column_names)}. Name one with --column."
        raise MediaError(f"the table {path} has no column {column!r}.", hint)
    values = table[column].to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise MediaError(f"the table {path} names no video in row {row}: {column} is {value!r}.")
    return [_beside(path, value) for value in values]


def _beside(listing: Path, text: str) -> str:
    """A path of a list, which may be relative to the list's folder."""
    return text if is_address(text) else str(listing.parent / text)
