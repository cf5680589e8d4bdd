"""Bundles that libavsbg refuses: those that Python refuses, and no others."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES
from avsbg.runtime.errors import BundleError
from fixtures.libavsbg import Library, LibraryError, ModelOptions

pytestmark = pytest.mark.native

VECTORS = "vectors/clips1_seed1.npz"
HASH = {"sha256": "0" * 64, "bytes": 1}
CHECKPOINT = {"role": "network", "name": "a", "sha256": "0" * 64}
# A place in the manifest, a value, and what the message names.
EDITS: list[tuple[str, Any, str]] = [
    ("colour", "red", "colour"),
    ("clip/frames", "5", "clip.frames"),
    ("clip/frames", 5.0, "clip.frames"),
    ("clip/frames", True, "clip.frames"),
    ("clip/frames", 0, "clip.frames"),
    ("clip/frames", 10**9, "clip.frames"),
    ("clip/audio", "video", "clip.audio"),
    ("clip/sample_rate", 96000, "clip.sample_rate"),
    ("clip/fps", 25, "clip.fps"),
    ("clip", {"frames": 4096, "height": 16384, "width": 16384, "audio": "waveform"}, "a clip has"),
    ("graphs/clip/inputs/0/dtype", "object", "graphs.clip.inputs.0.dtype"),
    ("graphs/clip/inputs/0/shape", [True, 5], "graphs.clip.inputs.0.shape"),
    ("graphs/clip/outputs/0/shape", [1, 2**62], "graphs.clip.outputs.0.shape"),
    ("graphs/clip/outputs/0/shape", [1, 2**20, 2**20], "the tensor logits has"),
    ("graphs/clip/outputs/0/shape", [1, -5], "graphs.clip.outputs.0.shape"),
    ("graphs/clip/file", "other.onnx", "other.onnx"),
    ("graphs/clip/file", "../clip.onnx", "../clip.onnx"),
    ("graphs/clip/file", "/etc/passwd", "/etc/passwd"),
    ("graphs/clip/file", "a\\b", "a\\b"),
    ("graphs/clip/file", "a//b", "a//b"),
    ("graphs/clip/file", "./clip.onnx", "./clip.onnx"),
    ("graphs", {}, "graphs"),
    ("graphs/clip/inputs/1/name", "frames", "input names repeat"),
    ("weights", {}, "weights"),
    ("weights", {"seed": 1, "checkpoints": [CHECKPOINT]}, "weights"),
    ("files/clip.onnx/sha256", "abc", "files.clip.onnx.sha256"),
    ("files/clip.onnx/bytes", -1, "files.clip.onnx.bytes"),
    ("files/manifest.json", HASH, "manifest.json"),
    ("files/..", HASH, "'..'"),
    ("variant/audio", None, "variant.audio"),
    ("preprocessing/mean", [0.5, 0.5], "preprocessing.mean"),
    ("preprocessing/frame_offset", 1, "preprocessing.frame_offset"),
    ("created", "yesterday", "created"),
    ("created", "2026-01-01T00:00:00", "created"),
    ("created", "2026-13-01T00:00:00Z", "created"),
    ("format", 2, "format 2"),
    ("format", True, "format true"),
]


def refuse(library: Library, bundle: Path, message: str = "") -> None:
    """Both runtimes refuse the bundle; ours with the message."""
    with pytest.raises(BundleError):
        Bundle.open(bundle)
    with pytest.raises(LibraryError) as caught, library.open(bundle):
        pass
    assert caught.value.status == "bundle"
    assert message in caught.value.message
    assert len(str(caught.value)) < 3000


def edit(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of the document with the dotted `path` set."""
    copy: Any = json.loads(json.dumps(document))
    *parents, last = path.split("/") if not path.startswith("files/") else ("files", *path[6:].rsplit("/", 1))
    place = copy
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    place[last] = value
    return copy


@pytest.mark.parametrize(("path", "value", "named"), EDITS)
def test_a_manifest_edited_by_hand_is_named(
    bundle_copy: Path, library: Library, path: str, value: object, named: str
) -> None:
    document = json.loads((bundle_copy / MANIFEST).read_text())
    (bundle_copy / MANIFEST).write_text(json.dumps(edit(document, path, value)))
    refuse(library, bundle_copy, named)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"format": 1}', b"\0", b"\xff\xfe\0",
     b" " * (MAX_MANIFEST_BYTES + 1), b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b'{"format": NaN}',
     b'{"format": 1e999}', b'{"format": 1, "name": "\\ud800"}'],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_manifest_is_refused(bundle_copy: Path, library: Library, content: bytes) -> None:
    (bundle_copy / MANIFEST).write_bytes(content)
    refuse(library, bundle_copy)


def test_any_edit_is_judged_as_python_judges_it(bundle_copy: Path, library: Library) -> None:
    """Replace one value anywhere in the manifest by anything; what is valid to one is valid to the other."""
    text = (bundle_copy / MANIFEST).read_text()
    chance = random.Random(16)
    numbers = [None, True, 0, 1, -1, 2.5, 2**63]
    values: list[Any] = [*numbers, "", "a", "fp16", "clips", [], [1], {}, {"a": 1}, "..", "é" * 300]
    agreed = {True: 0, False: 0}
    for _ in range(300):
        document: Any = json.loads(text)
        place = document
        while True:
            key: Any = chance.choice(list(range(len(place))) if isinstance(place, list) else list(place))
            if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.3:
                break
            place = place[key]
        place[key] = chance.choice(values)
        (bundle_copy / MANIFEST).write_text(json.dumps(document))
        try:
            Bundle.open(bundle_copy)
            valid = True
        except BundleError:
            valid = False
        status = _open_status(library, bundle_copy)
        assert (status != 2) == valid, f"{key} = {place[key]!r}: {library.c.avsbg_last_error().decode()}"
        agreed[valid] += 1
    assert min(agreed.values()) > 10


def _open_status(library: Library, bundle: Path) -> int:
    """The status of opening a bundle as far as its backend, which is not there."""
    model = ctypes.c_void_p()
    options = ModelOptions(size=ctypes.sizeof(ModelOptions), backend_folder=b"/nowhere")
    return int(library.c.avsbg_model_open(str(bundle).encode(), ctypes.byref(options), ctypes.byref(model)))


def _link_a_file(bundle: Path) -> None:
    (bundle / "clip.onnx").rename(bundle / "hidden")
    (bundle / "clip.onnx").symlink_to("hidden")


def _link_a_folder(bundle: Path) -> None:
    (bundle / "vectors").rename(bundle.parent / "elsewhere")
    (bundle / "vectors").symlink_to(bundle.parent / "elsewhere")


def _pipe_for_a_file(bundle: Path) -> None:
    (bundle / "clip.onnx").unlink()
    os.mkfifo(bundle / "clip.onnx")


def _flip_a_byte(bundle: Path) -> None:
    content = bytearray((bundle / "clip.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "clip.onnx").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bundle: (bundle / "clip.onnx").unlink(), "clip.onnx is missing"),
        (lambda bundle: (bundle / "clip.onnx").write_bytes(b""), "has changed: 0 bytes"),
        (_flip_a_byte, "has changed: its sha256"),
        (_link_a_file, "clip.onnx is a symbolic link"),
        (_link_a_folder, "vectors is a symbolic link"),
        (_pipe_for_a_file, "clip.onnx is not a regular file"),
        (lambda bundle: (bundle / MANIFEST).unlink(), "holds no manifest.json"),
        (shutil.rmtree, "there is no bundle"),
    ],
)
def test_damage_is_found_before_anything_is_read(
    bundle_copy: Path, library: Library, damage: Callable[[Path], None], message: str
) -> None:
    with library.open(bundle_copy):
        pass
    damage(bundle_copy)
    refuse(library, bundle_copy, message)


def _renew_hashes(bundle: Path) -> None:
    document = json.loads((bundle / MANIFEST).read_text())
    for name, record in document["files"].items():
        record.update(sha256=sha256(bundle / name), bytes=(bundle / name).stat().st_size)
    (bundle / MANIFEST).write_text(json.dumps(document))


def _claim(shape: str) -> Callable[[bytes], bytes]:
    """Another shape in the header of an array, of the same length."""
    old = b"'shape': (1, 5, 16, 24)"
    return lambda content: content.replace(old, f"'shape': {shape}".encode().ljust(len(old)))


def _encrypt(content: bytes) -> bytes:
    """Say of the first member, in the directory, that it is encrypted."""
    entry = content.index(b"PK\x01\x02")
    return content[: entry + 8] + bytes([content[entry + 8] | 1]) + content[entry + 9 :]


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "no zip": lambda _: b"not a zip",
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "directory only": lambda content: content[-22:],
    "directory elsewhere": lambda content: content[:-6] + b"\xff\xff\xff\x7f" + content[-2:],
    "more members": lambda content: content[:-12] + b"\xff\xff" + content[-10:],
    "encrypted": _encrypt,
    "huge": _claim("(9999999, 99999)"),
    "negative": _claim("(-1, 5, 16, 24)"),
    "other shape": _claim("(1, 5, 16, 23)"),
    "objects": lambda content: content.replace(b"'descr': '<f4'", b"'descr': '|O'"),
    "big endian": lambda content: content.replace(b"'descr': '<f4'", b"'descr': '>f4'"),
    "fortran": lambda content: content.replace(b"'fortran_order': False", b"'fortran_order': True "),
    "no npy": lambda content: content.replace(b"\x93NUMPY", b"\x93BUMPY"),
    "one bit": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_vectors_that_are_not_as_the_manifest_says_are_refused(bundle_copy: Path, library: Library, name: str) -> None:
    path = bundle_copy / VECTORS
    with np.load(path) as archive:
        arrays = dict(archive.items())
    np.savez(path, **arrays)  # type: ignore[arg-type]
    content = path.read_bytes()
    changed = HOSTILE[name](content)
    assert changed != content
    path.write_bytes(changed)
    _renew_hashes(bundle_copy)
    with library.open(bundle_copy) as model, pytest.raises(LibraryError, match="does not hold the vectors") as caught:
        model.verify()
    assert caught.value.status == "bundle"


def test_a_manifest_whose_clip_is_not_the_graphs_is_refused_before_the_graph_runs(
    bundle_copy: Path, library: Library
) -> None:
    """Buffers are made by the manifest's description of a clip: a smaller one would be read beyond its end."""
    document = json.loads((bundle_copy / MANIFEST).read_text())
    frame = np.zeros((document["clip"]["height"], document["clip"]["width"], 3), np.uint8)
    document["clip"]["height"] //= 2
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    sound = np.zeros(16000, np.float32)
    with library.open(bundle_copy) as model, pytest.raises(LibraryError, match="the graph's contract is") as caught:
        model.run_clip([frame], sound)
    assert caught.value.status == "backend" and "the input frames has" in caught.value.message


def test_vectors_of_another_rank_are_not_compared(bundle_copy: Path, library: Library) -> None:
    """Graph, vectors and manifest may agree on a rank that the comparison does not know."""
    graph = onnx.load(bundle_copy / "clip.onnx")
    (node,) = [node for node in graph.graph.node if "probability" in node.output]
    node.output[list(node.output).index("probability")] = "whole"
    graph.graph.node.append(onnx.helper.make_node("Flatten", ["whole"], ["probability"], axis=1))
    (output,) = [one for one in graph.graph.output if one.name == "probability"]
    del output.type.tensor_type.shape.dim[2:]
    output.type.tensor_type.shape.dim[1].dim_value = 5 * 16 * 24
    onnx.save(graph, bundle_copy / "clip.onnx")
    with np.load(bundle_copy / VECTORS) as archive:
        arrays = dict(archive.items())
    arrays["outputs.probability"] = arrays["outputs.probability"].reshape(1, -1)
    np.savez(bundle_copy / VECTORS, **arrays)  # type: ignore[arg-type]
    document = json.loads((bundle_copy / MANIFEST).read_text())
    for outputs in (document["graphs"]["clip"]["outputs"], document["vectors"][0]["outputs"]):
        (probability,) = [one for one in outputs if one["name"] == "probability"]
        probability["shape"] = [probability["shape"][0], 5 * 16 * 24]
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    _renew_hashes(bundle_copy)
    with library.open(bundle_copy) as model, pytest.raises(LibraryError) as caught:
        model.verify()
    assert "hold probability in a shape that is not compared" in caught.value.message


def test_vectors_that_change_after_the_bundle_was_opened_are_refused(bundle_copy: Path, library: Library) -> None:
    path = bundle_copy / VECTORS
    with library.open(bundle_copy) as model:
        content = path.read_bytes()
        for changed in (content[:3000] + b"\0\1\2\3" + content[3004:], content[:3000], content + b"1"):
            path.write_bytes(changed)
            with pytest.raises(LibraryError) as caught:
                model.verify()
            assert caught.value.status == "bundle" and path.name in caught.value.message
        path.write_bytes(content)
        assert model.verify()[0]


def test_deflated_vectors_are_read(bundle_copy: Path, library: Library) -> None:
    path = bundle_copy / VECTORS
    with np.load(path) as archive:
        arrays = dict(archive.items())
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    _renew_hashes(bundle_copy)
    with library.open(bundle_copy) as model:
        passed, found = model.verify()
    assert passed and len(found) == 4
    path.write_bytes(path.read_bytes()[:3000] + b"\0\1\2\3" + path.read_bytes()[3004:])
    _renew_hashes(bundle_copy)
    with library.open(bundle_copy) as model, pytest.raises(LibraryError, match="damaged"):
        model.verify()


def test_structures_of_other_versions(tiny: Bundle, library: Library) -> None:
    """Programs of an earlier version have smaller structures, those of a later one larger ones."""
    model = ctypes.c_void_p()

    class Later(ctypes.Structure):
        _fields_ = [("base", ModelOptions), ("option", ctypes.c_int64)]

    class LaterInfo(ctypes.Structure):
        _fields_ = [("size", ctypes.c_size_t), ("rest", ctypes.c_ubyte * 256)]

    larger = ctypes.sizeof(Later)
    for size, value, status in ((0, 0, 1), (8, 0, 1), (5000, 0, 1), (larger, 1, 1), (larger, 0, 3)):
        options = Later(ModelOptions(size=size, backend_folder=b"/nowhere"), value)
        found = library.c.avsbg_model_open(str(tiny.path).encode(), ctypes.byref(options), ctypes.byref(model))
        assert (size, value, found) == (size, value, status)
    with library.open(tiny.path) as opened:
        found = LaterInfo(size=ctypes.sizeof(LaterInfo), rest=(ctypes.c_ubyte * 256)(*[255] * 256))
        library.check(library.c.avsbg_model_get_info(opened.handle, ctypes.byref(found)))
        assert bytes(found.rest)[-100:] == bytes(100)  # fields that this version does not have
    assert library.c.avsbg_model_open(None, None, ctypes.byref(model)) == 1
    assert library.c.avsbg_last_error() == b"bundle is NULL."
    assert library.c.avsbg_model_get_info(None, None) == 1
    library.c.avsbg_model_close(None)
    assert library.c.avsbg_abi_version() == 1
