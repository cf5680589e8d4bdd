from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle import manifest as manifest_module
from avsbg.runtime.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest, read_manifest, schema
from avsbg.runtime.errors import BundleError

SCHEMA = Path(manifest_module.__file__).with_name("manifest.schema.json")


@pytest.fixture(scope="module")
def document(tiny: Bundle) -> dict[str, Any]:
    return json.loads((tiny.path / MANIFEST).read_text())


def read(tmp_path: Path, document: object) -> Manifest:
    path = tmp_path / MANIFEST
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_manifest(path)


def test_committed_schema_is_the_models() -> None:
    assert SCHEMA.read_text() == schema(), f"write what schema() returns to {SCHEMA.name}"


def test_schema_accepts_what_we_write_and_rejects_what_we_reject(document: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    validator.validate(document)
    assert not validator.is_valid({**document, "colour": "red"})
    assert not validator.is_valid({**document, "clip": {**document["clip"], "frames": "5"}})


def test_round_trip(tmp_path: Path, document: dict[str, Any]) -> None:
    read_back = read(tmp_path, document)
    assert json.loads(read_back.model_dump_json()) == document


def put(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of the document with the dotted `path` set."""
    copy = json.loads(json.dumps(document))
    *parents, last = path.split("/")
    place = copy
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("colour", "red", "colour"),
        ("clip/frames", "5", "clip.frames"),
        ("clip/frames", 0, "clip.frames"),
        ("clip/frames", 10**9, "clip.frames"),
        ("clip/audio", "video", "clip.audio"),
        ("clip/sample_rate", 96000, "clip.sample_rate"),
        ("clip/fps", 25, "clip.fps"),
        ("graphs/clip/inputs/0/dtype", "object", "graphs.clip.inputs.0.dtype"),
        ("graphs/clip/inputs/0/shape", [True, 5], "graphs.clip.inputs.0.shape"),
        ("graphs/clip/file", "other.onnx", "other.onnx"),
        ("graphs/clip/file", "../clip.onnx", "graphs.clip.file"),
        ("graphs/clip/file", "/etc/passwd", "graphs.clip.file"),
        ("graphs/clip/file", "a\\b", "graphs.clip.file"),
        ("graphs/clip/file", "a//b", "graphs.clip.file"),
        ("graphs/clip/file", "./clip.onnx", "graphs.clip.file"),
        ("graphs", {}, "graphs"),
        ("graphs/clip/inputs/1/name", "frames", "input names repeat"),
        ("weights", {}, "weights"),
        ("weights", {"seed": 1, "checkpoints": [{"role": "network", "name": "a", "sha256": "0" * 64}]}, "weights"),
        ("files/clip.onnx/sha256", "abc", "files.clip.onnx.sha256"),
        ("files/clip.onnx/bytes", -1, "files.clip.onnx.bytes"),
        ("files/manifest.json", {"sha256": "0" * 64, "bytes": 1}, "manifest.json"),
        ("variant/audio", None, "variant.audio"),
        ("preprocessing/mean", [0.5, 0.5], "preprocessing.mean"),
        ("created", "yesterday", "created"),
        ("created", "2026-01-01T00:00:00", "created"),
    ],
)
def test_edited_by_hand(tmp_path: Path, document: dict[str, Any], path: str, value: object, named: str) -> None:
    with pytest.raises(BundleError) as caught:
        read(tmp_path, put(document, path, value))
    assert named in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint


def test_missing_field_is_named(tmp_path: Path, document: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="parameters"):
        read(tmp_path, {key: value for key, value in document.items() if key != "parameters"})


def test_other_format_version(tmp_path: Path, document: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="format 2"):
        read(tmp_path, {**document, "format": 2})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"format": 1}', "\x00"])
def test_not_a_manifest(tmp_path: Path, text: str) -> None:
    with pytest.raises(BundleError):
        read(tmp_path, text)


def test_binary_and_huge_files(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="cannot be read"):
        read_manifest(path)
    path.write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(BundleError, match="at most"):
        read_manifest(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=10), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_edit_is_valid_or_a_bundle_error(tmp_path_factory: Any, document: dict[str, Any], data: Any) -> None:
    """Replace one value anywhere in the document by anything."""
    copy = json.loads(json.dumps(document))
    place: Any = copy
    while True:
        keys = list(range(len(place))) if isinstance(place, list) else list(place)
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(_JSON)
    try:
        read(tmp_path_factory.getbasetemp(), copy)
    except BundleError as error:
        assert len(str(error)) < 3000
