"""Shapes of absurd size in what a bundle's files claim: an error that names the value, before anything is allocated."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.backends.tensorrt.shapes import EngineTensor, largest_shapes
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.engine_record import ProfileRecord
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.bundle.record_types import MAX_ELEMENTS, validate_shape
from avsbg.runtime.errors import BackendError, BundleError
from fixtures.tiny_bundle import make_bundle

VECTORS = "vectors/clips1_seed1.npz"
HUGE = 2**62


@pytest.fixture
def bundle(tiny: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.path, tmp_path / "bundle"))


def _edit(bundle: Path, change: Any) -> None:
    """Change a bundle as somebody would who also writes its manifest: every file has its true hash."""
    path = bundle / MANIFEST
    document = json.loads(path.read_text())
    change(document)
    for name, record in document["files"].items():
        record.update(sha256=sha256(bundle / name), bytes=(bundle / name).stat().st_size)
    path.write_text(json.dumps(document))


def test_shapes_by_hand() -> None:
    assert validate_shape(("clips", 5, 224, 224, 3)) is None
    assert validate_shape((MAX_ELEMENTS,)) is None and validate_shape(()) is None and validate_shape((0, 5)) is None
    assert validate_shape((MAX_ELEMENTS, 0)) is None
    assert validate_shape((2**16, 2**16)) == f"has 65536 x 65536 = {2**32} elements, and {MAX_ELEMENTS} are the most"
    assert validate_shape((2, -3)) == "has the dimension -3"
    # In 64 bits this product would be 0.
    assert "18446744073709551616 elements" in str(validate_shape((2**32, 2**32)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1, HUGE], rf"{HUGE}"),
        ([1, 2**20, 2**20], r"the tensor logits has 1 x 1048576 x 1048576 = 1099511627776 elements"),
        ([1, -5], r"-5"),
    ],
)
@pytest.mark.parametrize("where", ["graph", "vectors"])
def test_a_manifests_shape_is_named(bundle: Path, where: str, shape: list[int], message: str) -> None:
    def change(document: dict[str, Any]) -> None:
        record = document["graphs"]["clip"] if where == "graph" else document["vectors"][0]
        next(tensor for tensor in record["outputs"] if tensor["name"] == "logits")["shape"] = shape

    _edit(bundle, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


def test_a_clip_too_large_for_any_buffer_is_named(bundle: Path) -> None:
    _edit(bundle, lambda document: document["clip"].update(frames=4096, height=16384, width=16384))
    with pytest.raises(BundleError, match=r"a clip has 4096 x 16384 x 16384 x 3 = 3298534883328 elements"):
        Bundle.open(bundle)


@pytest.mark.parametrize("shape", [(HUGE,), (2**20, 2**20), (-1, 5), ()])
def test_an_engines_profile_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match=str(shape[0]) if shape else "largest\n.*at least 1 item"):
        ProfileRecord(smallest=(1,), optimal=(1,), largest=shape)


@pytest.mark.parametrize("clips", [HUGE, -1])
def test_an_engine_that_asks_for_too_much_is_refused_before_memory_is_taken(tiny: Bundle, clips: int) -> None:
    contract = tiny.graph("clip")
    tensors = {}
    for record in (*contract.inputs, *contract.outputs):
        shape = tuple(clips if isinstance(size, str) else size for size in record.shape)
        profiles = ((shape, shape, shape),) if record in contract.inputs else ()
        tensors[record.name] = EngineTensor(record.name, bool(profiles), record.dtype, shape, profiles)
    # A negative size never is the largest, which leaves 0: nothing is taken for it.
    if clips < 0:
        assert all(0 in shape for shape in largest_shapes(tensors, contract).values())
        return
    with pytest.raises(BackendError, match=rf"the engine's largest frames has {HUGE} x 5 x 16 x 24 x 3 = "):
        largest_shapes(tensors, contract)


@pytest.mark.parametrize("claimed", [(HUGE,), (2**20, 2**20), (-1,), (1, 5, 16, 25)])
def test_vectors_that_claim_more_than_they_hold_are_refused_unread(bundle: Path, claimed: tuple[int, ...]) -> None:
    with np.load(bundle / VECTORS) as archive:
        arrays = dict(archive.items())
    header = io.BytesIO()
    descr = {"descr": "<f4", "fortran_order": False, "shape": claimed}
    np.lib.format.write_array_header_1_0(header, descr)
    with zipfile.ZipFile(bundle / VECTORS, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            hostile = name == "outputs.logits"
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(64) if hostile else content.getvalue())
    _edit(bundle, lambda _: None)
    opened = Bundle.open(bundle)
    with pytest.raises(BundleError, match=rf"logits is float32\[{', '.join(map(str, claimed))}\]"):
        list(opened.vectors())


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_vectors_under_a_right_hash_are_an_error_that_names_them(bundle: Path, compression: int) -> None:
    with zipfile.ZipFile(bundle / VECTORS) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(bundle / VECTORS, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    whole = (bundle / VECTORS).read_bytes()
    _edit(bundle, lambda _: None)
    opened = Bundle.open(bundle)
    assert len(list(opened.vectors())) == len(opened.manifest.vectors)
    rng = np.random.default_rng(0)
    damages = [whole[:length] for length in (0, 1, 30, len(whole) // 2, len(whole) - 1)]
    for _ in range(150):
        damaged = bytearray(whole)
        start = int(rng.integers(len(whole)))
        damaged[start : start + int(rng.integers(1, 20))] = rng.bytes(int(rng.integers(0, 20)))
        damages.append(bytes(damaged))
    for damage in damages:
        (bundle / VECTORS).write_bytes(damage)
        try:
            list(opened.vectors())
        except BundleError as error:
            assert VECTORS in str(error)


@pytest.mark.parametrize("dimensions", [[HUGE], [-4], [2**31, 2**31], [2**32, 2**32]])
def test_onnxruntime_refuses_a_weight_of_that_size(tmp_path: Path, dimensions: list[int]) -> None:
    import onnx

    path = make_bundle(tmp_path / "bundle").path
    model = onnx.load(str(path / "clip.plain.onnx"))
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=dimensions, raw_data=bytes(16))
    model.graph.initializer.append(weight)
    model.graph.node.append(onnx.helper.make_node("Identity", ["w"], ["unused_w"]))
    onnx.save(model, str(path / "clip.plain.onnx"))
    _edit(path, lambda _: None)
    backend = OnnxRuntimeBackend(Bundle.open(path), operator="plain")
    with pytest.raises(BackendError, match=r"cannot load .*clip\.plain\.onnx"), backend:
        pass
