"""Bundles whose ONNX files point where they must not: refused before ONNX Runtime or TensorRT opens anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from avsbg.export.engine.builder import make_profile
from avsbg.export.engine.request import BuildError
from avsbg.export.external_data import check_external_data
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import FileRecord, GraphRecord, Manifest
from avsbg.runtime.errors import BundleError
from fixtures.cli import run_avsbg

SECRET = "secret.bin"


def _bundle(
    folder: Path, *, location: str, offset: str = "0", length: str = "16", inside: str = "initializer"
) -> Bundle:
    """A bundle as somebody would make it who also writes its manifest: every file is listed with its true hash."""
    (folder / SECRET).write_bytes(bytes(64))
    path = folder / "bundle"
    path.mkdir()
    (path / "weights.bin").write_bytes(bytes(16))
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        weight.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    weights = [weight]
    if inside == "attribute":
        nodes, weights = [helper.make_node("Constant", [], ["w"], value=weight), *nodes], []
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    (path / "clip.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    tensor = {"name": "x", "dtype": "float32", "shape": (4,)}
    record = {
        "file": "clip.onnx",
        "external_data": ("weights.bin",),
        "operator": "plain",
        "opset": 20,
        "ir_version": 10,
        "inputs": (tensor,),
        "outputs": ({**tensor, "name": "y"},),
        "node_count": len(nodes),
        "operators": {"Add": 1},
    }
    files = {file.name: FileRecord(sha256=sha256(file), bytes=file.stat().st_size) for file in sorted(path.iterdir())}
    manifest = Manifest.model_validate(
        {
            "name": "hostile",
            "variant": {},
            "weights": {"seed": 0},
            "clip": {"frames": 2, "height": 32, "width": 32, "audio": "waveform"},
            "graphs": {"clip": record},
            "parameters": {"published": 4, "inference": 4},
            "files": files,
            "versions": {},
            "created": "2026-01-01T00:00:00Z",
        }
    )
    (path / "manifest.json").write_text(manifest.model_dump_json())
    return Bundle.open(path)


def _check(bundle: Bundle) -> None:
    record: GraphRecord = bundle.graph("clip")
    check_external_data(bundle, record)


def test_weights_in_their_file_pass(tmp_path: Path) -> None:
    _check(_bundle(tmp_path, location="weights.bin"))


@pytest.mark.parametrize("inside", ["initializer", "attribute"])
@pytest.mark.parametrize("location", [f"../{SECRET}", "/etc/passwd", "", "weights.bin/", "clip.onnx", "manifest.json"])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str, inside: str) -> None:
    bundle = _bundle(tmp_path, location=location, inside=inside)
    with pytest.raises(BundleError, match=r"the weight w lies in .* which is not one of the graph's files"):
        _check(bundle)
    # The verb that would open it says so too, and leaves the bundle as it was.
    options = [
        "--backend",
        "tensorrt-rtx",
        "--precision",
        "fp32",
        "--implementation",
        "plain",
        "--compute-capability",
        "86",
    ]
    pytest.importorskip("tensorrt_rtx")
    result = run_avsbg("build", bundle.path, *options)
    assert isinstance(result.error, BundleError)
    assert not (bundle.path / "engines").exists()


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        ("0", "17"),
        ("16", "1"),
        ("-16", "16"),
        ("0", "-1"),
        ("0", str(2**62)),
        (str(2**70), "0"),
        ("0x0", "16"),
        ("²", "1"),
    ],
)
def test_weights_beyond_their_file_are_refused(tmp_path: Path, offset: str, length: str) -> None:
    with pytest.raises(BundleError, match=r"the weight w lies at .* bytes, and weights\.bin has 16"):
        _check(_bundle(tmp_path, location="weights.bin", offset=offset, length=length))


def _rewrite(bundle: Bundle, change: Callable[[onnx.ModelProto], None]) -> Bundle:
    path = bundle.file("clip.onnx")
    model = onnx.load(str(path), load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    return bundle


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ([2**62], rf"the weight w has {2**62} = {2**62} elements"),
        ([2**32, 2**32], r"the weight w has 4294967296 x 4294967296 = 18446744073709551616 elements"),
        ([-4], r"the weight w has the dimension -4"),
        ([2**20, 4], r"the weight w of 1048576 x 4 takes 16777216 bytes, and 16 lie in weights\.bin"),
    ],
)
def test_a_weights_size_is_checked_before_it_is_read(tmp_path: Path, dimensions: list[int], message: str) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = dimensions

    with pytest.raises(BundleError, match=message):
        _check(_rewrite(_bundle(tmp_path, location="weights.bin"), change))


def test_a_weight_in_the_file_has_as_many_bytes_as_its_dimensions_say(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0].external_data[:]
        model.graph.initializer[0].data_location = TensorProto.DEFAULT
        model.graph.initializer[0].raw_data = bytes(12)

    with pytest.raises(BundleError, match=r"the weight w of 4 takes 16 bytes, and it has 12"):
        _check(_rewrite(_bundle(tmp_path, location="weights.bin"), change))


@pytest.mark.parametrize("kind", [TensorProto.STRING, 9999])
def test_a_weight_is_of_numbers(tmp_path: Path, kind: int) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].data_type = kind

    with pytest.raises(BundleError, match=rf"the weight w has the type {kind}, which is none of numbers|contradict"):
        _check(_rewrite(_bundle(tmp_path, location="weights.bin"), change))


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [([2**62], rf"the tensor x has {2**62} = "), ([2**19, 2**19], "274877906944 elements"), ([-7], "the dimension -7")],
)
@pytest.mark.parametrize("which", ["input", "output", "value_info"])
def test_a_tensors_size_is_checked_before_the_graph_is_built(
    tmp_path: Path, dimensions: list[int], message: str, which: str
) -> None:
    def change(model: onnx.ModelProto) -> None:
        info = helper.make_tensor_value_info("x" if which == "input" else "z", TensorProto.FLOAT, dimensions)
        if which == "input":
            model.graph.input[0].CopyFrom(info)
        else:
            model.graph.node.append(helper.make_node("Identity", ["x"], ["z"]))
            getattr(model.graph, which).append(info)

    wanted = message.replace("tensor x", "tensor x" if which == "input" else "tensor z")
    with pytest.raises(BundleError, match=f"{wanted}|contradict each other"):
        _check(_rewrite(_bundle(tmp_path, location="weights.bin"), change))


def test_a_size_that_only_follows_from_the_graph_is_found(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        shape = helper.make_tensor("size", TensorProto.INT64, [2], [2**20, 2**20])
        model.graph.node.append(helper.make_node("Constant", [], ["size"], value=shape))
        model.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["huge"]))

    with pytest.raises(BundleError, match=r"the tensor huge has 1048576 x 1048576 = 1099511627776 elements"):
        _check(_rewrite(_bundle(tmp_path, location="weights.bin"), change))


@pytest.mark.parametrize("clips", ["9" * 19, str(2**40)])
def test_a_number_of_clips_that_no_engine_takes_is_an_error(tmp_path: Path, clips: str) -> None:
    record = _bundle(tmp_path, location="weights.bin").graph("clip")
    dynamic = record.inputs[0].model_copy(update={"shape": ("clips", 4)})
    with pytest.raises(BuildError, match=rf"--batch-range \.\.\. {clips}: the input x has {clips} x 4 = "):
        make_profile(record.model_copy(update={"inputs": (dynamic,)}), (1, 1, int(clips)))


def test_a_file_that_is_no_onnx_model_is_refused(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, location="weights.bin")
    bundle.file("clip.onnx").write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(BundleError, match=r"clip\.onnx is not an ONNX model"):
        _check(bundle)
    manifest = bundle.manifest.model_copy(deep=True)
    file = bundle.file("clip.onnx")
    manifest.files["clip.onnx"] = FileRecord(sha256=sha256(file), bytes=file.stat().st_size)
    (bundle.path / "manifest.json").write_text(manifest.model_dump_json())
    assert isinstance(run_avsbg("inspect", bundle.path, "--dla", "clip").error, BundleError)


OPTIONS = [
    "--backend",
    "--precision",
    "--implementation",
    "--batch-range",
    "--compute-capability",
    "--workspace",
    "--plugin",
]
SWITCHES = ["--timing-cache", "--strip-weights", "--verbose"]
VALUES = ["tensorrt", "tensorrt-rtx", "fp16", "fp7", "plain", "plugin", "1", "4", "0", "-1", "86", "9" * 22, "\u2603"]
WORDS = st.sampled_from([*OPTIONS, *SWITCHES, *VALUES])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(words=st.lists(WORDS, max_size=14))
def test_no_command_line_ends_in_a_traceback(words: list[str]) -> None:
    run_avsbg("build", "nowhere.bundle", *words)


def test_the_model_of_these_tests_is_what_onnx_reads(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path, location="weights.bin")
    onnx.checker.check_model(str(bundle.file("clip.onnx")))
