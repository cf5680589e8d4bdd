"""The videos of a collection: folders, lists, and names of outputs that are unique."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from avsbg.runtime.cluster.collection import check_addresses, list_collection
from avsbg.runtime.errors import MediaError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/one.mp4", "b/one.mp4", "b/two.webm", "b/notes.txt"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"")
    return tmp_path / "videos"


def pairs(*sources: object) -> list[tuple[str, str]]:
    return [(item.source, item.name) for item in list_collection([str(one) for one in sources])]


def test_a_folders_videos_keep_their_paths(folder: Path) -> None:
    assert [name for _, name in pairs(folder)] == ["a/one.mp4", "b/one.mp4", "b/two.webm"]


def test_a_list_has_paths_beside_it_addresses_and_comments(folder: Path) -> None:
    listing = folder / "list.txt"
    listing.write_text(f"# two places\na/one.mp4\n\n{folder}/b/two.webm\n")
    assert pairs(listing) == [(f"{folder}/a/one.mp4", "a/one.mp4"), (f"{folder}/b/two.webm", "b/two.webm")]
    listing.write_text("https://host/x/one.mp4?signature=1\ns3://bucket/y/one.mp4\n")
    assert [name for _, name in pairs(listing)] == ["host/x/one.mp4", "bucket/y/one.mp4"]


def test_no_name_leads_out_of_the_output(folder: Path) -> None:
    listing = folder / "list.txt"
    listing.write_text("../videos/a/one.mp4\nb/../b/two.webm\n")
    assert [name for _, name in pairs(listing)] == ["a/one.mp4", "b/two.webm"]
    listing.write_text("s3://bucket/x/../../../y/one.mp4\ns3://bucket/z/two.mp4?signature=/../../three.mp4\n")
    assert [name for _, name in pairs(listing)] == ["y/one.mp4", "bucket/z/two.mp4"]
    with pytest.raises(MediaError, match=r"s3://bucket/\.\. names no video"):
        pairs("s3://bucket/..")


def test_sources_are_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a cluster have another working directory."""
    monkeypatch.chdir(folder)
    (folder / "list.txt").write_text("b/two.webm\n")
    assert pairs("a", "list.txt") == [(f"{folder}/a/one.mp4", "one.mp4"), (f"{folder}/b/two.webm", "two.webm")]
    assert pairs("a/one.mp4") == [(f"{folder}/a/one.mp4", "one.mp4")]


def test_an_address_alone_has_its_last_part_as_a_name() -> None:
    assert pairs("https://host/deep/video.mp4") == [("https://host/deep/video.mp4", "video.mp4")]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: [folder / "a/one.mp4", folder / "b/one.mp4"], "would both be written to one.mp4"),
        (lambda folder: [folder / "nothing.mp4"], "there is no video, folder, list or table at"),
        (lambda folder: [folder / "b/notes.txt"], "name no video"),
    ],
)
def test_what_is_no_collection_is_an_error(folder: Path, make, problem: str) -> None:
    with pytest.raises(MediaError, match=problem):
        pairs(*make(folder))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds no video"):
        pairs(tmp_path)


def test_an_address_that_cannot_be_opened_here_names_the_package() -> None:
    check_addresses(["/v/a.mp4", "file:///v/a.mp4", "memory://a.mp4"])
    fsspec.register_implementation("absent", "absent_files.Files", errtxt="Install absent_files for it")
    with pytest.raises(MediaError, match=r"absent://b/a\.mp4 cannot be opened here: Install absent_files for it"):
        check_addresses(["/v/a.mp4", "absent://b/a.mp4"])
    with pytest.raises(MediaError, match=r"nothing://a\.mp4 cannot be opened here: .*nothing.* s3:// needs s3fs"):
        check_addresses(["nothing://a.mp4"])
