from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle, sha256, write_bundle
from avsbg.runtime.bundle.manifest import MANIFEST, FileRecord
from avsbg.runtime.errors import BackendError, BundleError
from fixtures import tiny_bundle
from fixtures.engines import add_engine


def test_what_was_written_is_read(tiny: Bundle) -> None:
    assert set(tiny.manifest.files) == {
        "clip.onnx", "clip.plain.onnx", "vectors/clips1_seed1.npz", "vectors/clips3_seed3.npz",
    }  # fmt: skip
    assert tiny.graph().operators["avsbg::MeanCorrelation"] == 1
    assert tiny.file("clip.onnx").stat().st_size == tiny.manifest.files["clip.onnx"].bytes
    one, three = tiny.vectors()
    assert (one.record.clips, three.record.clips) == (1, 3)
    for name, array in tiny_bundle.inputs(3, seed=3).items():
        np.testing.assert_array_equal(three.inputs[name], array)
    assert set(three.outputs) == {"logits", "probability"}
    assert three.intermediates["brightness"].shape == (3, 5, 16, 24)


def test_unknown_graph_and_file_name_the_known_ones(tiny: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no graph 'decode'.*clip, clip\.plain"):
        tiny.graph("decode")
    with pytest.raises(BundleError, match=r"no file 'README'.*clip\.onnx"):
        tiny.file("README")


def test_no_bundle_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle.open(tmp_path / "file")


def _flip_a_byte(bundle: Path) -> None:
    path = bundle / "clip.onnx"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def _link_a_file(bundle: Path) -> None:
    (bundle / "clip.onnx").rename(bundle.parent / "elsewhere.onnx")
    (bundle / "clip.onnx").symlink_to(bundle.parent / "elsewhere.onnx")


def _link_a_folder(bundle: Path) -> None:
    (bundle / "vectors").rename(bundle.parent / "elsewhere")
    (bundle / "vectors").symlink_to(bundle.parent / "elsewhere")


def _folder_for_a_file(bundle: Path) -> None:
    (bundle / "clip.onnx").unlink()
    (bundle / "clip.onnx").mkdir()


def _pipe_for_a_file(bundle: Path) -> None:
    (bundle / "clip.onnx").unlink()
    os.mkfifo(bundle / "clip.onnx")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bundle: (bundle / "clip.onnx").unlink(), r"clip\.onnx is missing"),
        (lambda bundle: (bundle / "clip.onnx").write_bytes(b""), r"clip\.onnx .* changed: 0 bytes"),
        (_flip_a_byte, r"clip\.onnx .* changed: its sha256"),
        (_link_a_file, r"clip\.onnx is a symbolic link.*`cp -rL .*/copy COPY`"),
        (_link_a_folder, "vectors is a symbolic link"),
        (_folder_for_a_file, r"clip\.onnx is not a regular file"),
        (_pipe_for_a_file, r"clip\.onnx is not a regular file"),
        (lambda bundle: (bundle / MANIFEST).unlink(), r"holds no manifest\.json"),
        (lambda bundle: (bundle / MANIFEST).write_text("{}"), "format None"),
    ],
)
def test_damage_is_found_when_opening(bundle_copy: Path, damage: Callable[[Path], None], message: str) -> None:
    Bundle.open(bundle_copy)
    damage(bundle_copy)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(bundle_copy)
    assert caught.value.hint


def _replace_vectors(bundle: Path, content: dict[str, np.ndarray] | bytes) -> Bundle:
    """Put other vectors into the bundle, with the hash that fits them."""
    name = "vectors/clips1_seed1.npz"
    if isinstance(content, bytes):
        (bundle / name).write_bytes(content)
    else:
        np.savez(bundle / name, **content)  # type: ignore[arg-type]
    document = json.loads((bundle / MANIFEST).read_text())
    record = FileRecord(sha256=sha256(bundle / name), bytes=(bundle / name).stat().st_size)
    document["files"][name] = record.model_dump()
    (bundle / MANIFEST).write_text(json.dumps(document))
    return Bundle.open(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a zip", "does not hold"),
        (b"", "does not hold"),
        ({"inputs.frames": np.zeros(3, np.uint8)}, r"frames is uint8\[3\], the manifest says"),
        ({"inputs.sound": np.zeros(3)}, "frames"),
        ({"inputs.frames": np.array([{}], dtype=object)}, r"frames is object\[1\], the manifest says"),
    ],
)
def test_vectors_that_are_not_what_the_manifest_says(
    bundle_copy: Path, content: dict[str, np.ndarray] | bytes, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        list(_replace_vectors(bundle_copy, content).vectors())


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    tiny_bundle.make_bundle(tmp_path / "bundle", vectors=False)
    with pytest.raises(BundleError, match="exists already"):
        tiny_bundle.make_bundle(tmp_path / "bundle")
    with write_bundle(tmp_path / "bundle", replace=True) as writer:
        (writer.directory / "clip.onnx").write_bytes(b"new")
        graph = Bundle.open(tmp_path / "bundle").graph().model_dump()
        writer.write_manifest(**tiny_bundle.manifest_fields({"clip": graph}))
    assert set(Bundle.open(tmp_path / "bundle").manifest.files) == {"clip.onnx"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_directory_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(BundleError, match="not a bundle"), write_bundle(tmp_path / "photos", replace=True):
        pass
    assert (tmp_path / "photos" / "cat.png").exists()


def test_nothing_is_left_of_a_bundle_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_bundle(tmp_path / "bundle") as writer:
        (writer.directory / "clip.onnx").write_bytes(b"half")
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="write_manifest"), write_bundle(tmp_path / "bundle"):
        pass
    lost = {
        "file": "lost.onnx", "operator": "plain", "opset": 20, "ir_version": 10, "node_count": 0, "operators": {},
        "inputs": [{"name": "frames", "dtype": "uint8", "shape": [1]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [1]}],
    }  # fmt: skip
    with pytest.raises(BundleError, match=r"lost\.onnx"), write_bundle(tmp_path / "bundle") as writer:
        (writer.directory / "clip.onnx").write_bytes(b"x")
        writer.write_manifest(**tiny_bundle.manifest_fields({"clip": lost}))
    assert list(tmp_path.iterdir()) == []


def test_deferred_hashes_are_those_of_what_is_loaded(bundle_copy: Path) -> None:
    for name in ("clip.plain.onnx", "vectors/clips1_seed1.npz"):
        data = bytearray((bundle_copy / name).read_bytes())
        data[len(data) // 2] ^= 1
        (bundle_copy / name).write_bytes(data)
    with pytest.raises(BundleError, match="has changed: its sha256"):
        Bundle.open(bundle_copy)
    opened = Bundle.open(bundle_copy, defer=True)
    opened.begin_checks(["clip.onnx"])
    assert opened.file("clip.onnx") == bundle_copy / "clip.onnx"
    for _ in range(2):  # it stays an error
        with pytest.raises(BundleError, match=r"clip\.plain\.onnx of the bundle .* has changed: its sha256"):
            opened.file("clip.plain.onnx")
    with pytest.raises(BundleError, match=r"clips1_seed1\.npz of the bundle .* has changed"):
        list(opened.vectors())


def test_deferred_hashes_of_a_graph_are_those_of_its_weights_too(bundle_copy: Path) -> None:
    (bundle_copy / "weights.bin").write_bytes(b"weights")
    document = json.loads((bundle_copy / MANIFEST).read_text())
    document["graphs"]["clip"]["external_data"] = ["weights.bin"]
    document["files"]["weights.bin"] = {"sha256": sha256(bundle_copy / "weights.bin"), "bytes": 7}
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    assert Bundle.open(bundle_copy, defer=True).file("clip.onnx").is_file()
    (bundle_copy / "weights.bin").write_bytes(b"changed")
    opened = Bundle.open(bundle_copy, defer=True)
    assert opened.file("clip.plain.onnx").is_file()
    with pytest.raises(BundleError, match=r"weights\.bin of the bundle .* has changed"):
        opened.file("clip.onnx")
    # A backend loads weights while they are hashed, and is not open before it is known that they have not changed.
    opened = Bundle.open(bundle_copy, defer=True)
    assert opened.file("clip.onnx", finish=False).is_file()
    backend = create("onnxruntime", opened, operator="function")
    with pytest.raises(BundleError, match=r"weights\.bin of the bundle .* has changed"):
        backend.__enter__()
    with pytest.raises(BackendError, match="is not open"):
        backend.run({})


def test_deferred_hashes_of_a_parsed_graph_are_those_of_its_weights_too(bundle_copy: Path) -> None:
    (bundle_copy / "weights.bin").write_bytes(b"weights")
    (bundle_copy / "clip.plugin.onnx").write_bytes(b"parsed")
    document = json.loads((bundle_copy / MANIFEST).read_text())
    document["graphs"]["clip"]["external_data"] = ["weights.bin"]
    document["files"]["weights.bin"] = {"sha256": sha256(bundle_copy / "weights.bin"), "bytes": 7}
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    plugin = {"sha256": "0" * 64, "operators": ["MeanCorrelation"], "version": "1", "namespace": ""}
    add_engine(bundle_copy, "one", graph="clip", operator="plugin", plugin=plugin, parsed_file="clip.plugin.onnx")
    assert Bundle.open(bundle_copy, defer=True).file("clip.plugin.onnx").is_file()
    (bundle_copy / "weights.bin").write_bytes(b"weighty")
    with pytest.raises(BundleError, match=r"weights\.bin of the bundle .* has changed: its sha256"):
        Bundle.open(bundle_copy, defer=True).file("clip.plugin.onnx")


def test_a_size_that_changed_shows_at_once(bundle_copy: Path) -> None:
    with (bundle_copy / "clip.plain.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(BundleError, match="bytes, the manifest says"):
        Bundle.open(bundle_copy, defer=True)
