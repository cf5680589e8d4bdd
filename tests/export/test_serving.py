"""Model repositories of graphs: a stream's graph with its state fed back by hand, and the server's own schema."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from avsbg.export.plugin_graph import PLUGIN_DOMAIN
from avsbg.export.precision.graphs import add_graph
from avsbg.export.serving import _build_script
from avsbg.native_library import NativeLibraryError
from avsbg.runtime.backends import BackendSpec
from avsbg.runtime.backends.onnxruntime.operator import register
from avsbg.runtime.bundle import Bundle, update_bundle
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.streaming.frame_pair import frame_inputs
from fixtures.cli import run_avsbg
from fixtures.environments import run_there

ATOL = 2e-5  # of probabilities: the order of float32 sums

# In the server's environment: a configuration by the server's own schema, as JSON.
PARSE = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
configs = [text_format.Parse(open(path).read(), model_config_pb2.ModelConfig()) for path in sys.argv[1:]]
print(json.dumps([json_format.MessageToDict(one, preserving_proto_field_name=True) for one in configs]))
"""


def write(bundle: Bundle, repository: Path, backend: str, *options: object) -> tuple[Path, Path]:
    """The folders of the models of clips and of streams."""
    done = run_avsbg("serve", "triton", bundle.path, "-o", repository, "--backend", backend, "--name", "m", *options)
    assert done.code == 0, done.output
    return repository / "m-clip", repository / "m-stream"


class FedBack:
    """A stream's graph as the server runs it: its states are the outputs of the call before, zeros at first."""

    def __init__(self, graph: Path, *, native: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if native:
            register(options)
        self.session = onnxruntime.InferenceSession(str(graph), options)
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.states = {value.name: value for value in self.session.get_inputs() if f"new_{value.name}" in self.outputs}
        self.kept: dict[int, dict[str, np.ndarray]] = {}

    def step(self, inputs: dict[int, dict[str, np.ndarray]], *, start: bool = False, end: bool = False):
        """A call with one frame of each stream; the outputs by stream."""
        streams = list(inputs)
        for stream in streams if start else ():
            dtypes = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
            self.kept[stream] = {
                name: np.zeros([1, *value.shape[1:]], dtypes[value.type]) for name, value in self.states.items()
            }
        given = {name: np.concatenate([inputs[one][name] for one in streams]) for name in inputs[streams[0]]}
        given |= {name: np.concatenate([self.kept[one][name] for one in streams]) for name in self.states}
        flags = {"START": start, "END": end}
        known = {value.name for value in self.session.get_inputs()}
        given |= {name: np.full((len(streams), 1), value) for name, value in flags.items() if name in known}
        results = dict(zip(self.outputs, self.session.run(None, given), strict=True))
        for row, stream in enumerate(streams):
            self.kept[stream] = {name: results[f"new_{name}"][row : row + 1] for name in self.states}
        return {stream: {name: array[row] for name, array in results.items()} for row, stream in enumerate(streams)}


def frames_of(bundle: Bundle, clip: int) -> list[dict[str, np.ndarray]]:
    """The frames of a clip of the test vectors, as `encode` takes them."""
    vectors = next(one for one in bundle.vectors() if one.record.clips == 3)
    inputs = {name: array[clip : clip + 1] for name, array in vectors.inputs.items()}
    return [frame_inputs(inputs, index) for index in range(bundle.manifest.clip.frames)]


def probabilities(bundle: Bundle) -> np.ndarray:
    """Clip mode's, `[clips, T, H, W]`."""
    return next(one for one in bundle.vectors() if one.record.clips == 3).outputs["probability"]


@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime:function", "onnxruntime:native", "tensorrt"])
def test_the_state_fed_back_gives_the_masks_of_clips(export_once, tmp_path: Path, backend: str) -> None:
    bundle = export_once("avs-bg, waveform").bundle
    try:
        clip, stream = write(bundle, tmp_path, backend)
    except NativeLibraryError:
        pytest.skip("the native operator was not built: no C++ compiler")
    place = "graph" if backend == "tensorrt" else "1/model.onnx"
    assert (clip / place / "weights.bin").is_file()
    graph = FedBack(stream / place / "model.onnx", native="native" in backend)
    frames = [frames_of(bundle, 0), frames_of(bundle, 1)]
    blank = {name: np.zeros_like(array) for name, array in frames[0][0].items()}
    # The second stream begins a frame later: then both are in one call.
    masks: dict[int, list[np.ndarray]] = {0: [], 1: []}
    first = graph.step({0: frames[0][0]}, start=True)
    assert not first[0]["valid"][0]
    assert not graph.step({1: frames[1][0]}, start=True)[1]["valid"][0]
    for number in (1, 2):
        for stream_number, told in graph.step({0: frames[0][number], 1: frames[1][number]}).items():
            assert told["valid"][0]
            masks[stream_number].append(told["probability"])
    for stream_number, told in graph.step({1: blank, 0: blank}, end=True).items():
        masks[stream_number].append(told["probability"])
    for stream_number, found in masks.items():
        np.testing.assert_allclose(np.stack(found), probabilities(bundle)[stream_number], rtol=0, atol=ATOL)


def test_a_stream_of_one_frame_is_its_own_partner_and_a_new_one_forgets(export_once, tmp_path: Path) -> None:
    bundle = export_once("avs-bg, waveform").bundle
    _, stream = write(bundle, tmp_path, "onnxruntime")
    graph, frames = FedBack(stream / "1/model.onnx/model.onnx"), frames_of(bundle, 0)
    graph.step({0: frames[0]}, start=True)
    alone = graph.step({0: frames[2]}, end=True)[0]["probability"]
    graph.step({0: frames[1]}, start=True)
    graph.step({0: frames[0]}, start=True)
    pair = graph.step({0: frames[0]})[0]["probability"]  # with itself as the next frame
    np.testing.assert_allclose(alone, pair, rtol=0, atol=ATOL)


def test_without_partners_a_mask_comes_at_once_and_there_is_no_state(export_once, tmp_path: Path) -> None:
    bundle = export_once("avs-bg without audio and motion").bundle
    _, stream = write(bundle, tmp_path, "onnxruntime")
    graph, frames = FedBack(stream / "1/model.onnx/model.onnx"), frames_of(bundle, 1)
    assert not graph.states
    masks = [graph.step({0: one}, start=not number)[0] for number, one in enumerate(frames)]
    assert all(one["valid"][0] for one in masks)
    found = np.stack([one["probability"] for one in masks])
    np.testing.assert_allclose(found, probabilities(bundle)[1], rtol=0, atol=ATOL)
    assert not graph.step({0: frames[0]}, end=True)[0]["valid"][0]


def test_in_fp16_the_state_is_fp16(export_once, tmp_path: Path) -> None:
    source = export_once("avs-bg as published, embedding").bundle
    subprocess.run(["cp", "-r", source.path, tmp_path / "bundle"], check=True)
    with update_bundle(Bundle.open(tmp_path / "bundle")) as update:
        for graph in ("clip", "encode", "decode"):
            add_graph(update, graph, "fp16")
    bundle = Bundle.open(tmp_path / "bundle")
    _, stream = write(bundle, tmp_path / "models", "onnxruntime:function:fp16")
    graph = FedBack(stream / "1/model.onnx/model.onnx")
    assert {value.type for value in graph.states.values()} == {"tensor(float16)"}
    frames = frames_of(bundle, 0)
    graph.step({0: frames[0]}, start=True)
    mask = graph.step({0: frames[1]})[0]["probability"]
    assert np.abs(mask - probabilities(bundle)[0][0]).max() < 2e-2


@pytest.mark.parametrize("backend", ["python", "onnxruntime:native", "tensorrt:plugin"])
def test_configurations_are_those_of_the_servers_schema(export_once: Callable, tmp_path: Path, backend: str) -> None:
    bundle = export_once("avs-bg, waveform").bundle
    try:
        clip, stream = write(bundle, tmp_path, backend, "--max-streams", 6, "--instances", 2)
    except NativeLibraryError:
        pytest.skip("the native operator was not built: no C++ compiler")
    if "plugin" in backend:
        # As of `avsbg build`: no function bodies, and one node of the plugin, which takes the maps of all stages.
        for folder, maps in ((clip, 4), (stream, 8)):
            model = onnx.load(str(folder / "graph/model.onnx"), load_external_data=False)
            ours = [node for node in model.graph.node if node.domain == PLUGIN_DOMAIN]
            assert not model.functions and [node.op_type for node in ours] == ["MeanCorrelations"]
            assert len(ours[0].input) == maps
        assert list(ours[0].input) == [f"decode/{map_}.{n}" for n in range(4) for map_ in ("fused", "partner")]
    done = run_there("triton", "-c", PARSE, clip / "config.pbtxt", stream / "config.pbtxt")
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    name = BackendSpec.parse(backend).backend
    assert (first["backend"], first["name"], second["name"]) == (name, "m-clip", "m-stream")
    assert second["max_batch_size"] == second["sequence_batching"]["oldest"]["max_candidate_sequences"] == 6
    states = second["sequence_batching"].get("state", [])
    assert len(states) == (0 if backend == "python" else 8)
    assert {one["dims"][0] for one in states} <= {"128"}
    kind = "KIND_GPU" if name == "tensorrt" else "KIND_CPU"
    assert [(one["count"], one["kind"]) for one in second["instance_group"]] == [(2, kind)]
    if name == "onnxruntime":
        assert first["model_operations"] == {"op_library_filename": ["libavsbg_onnxruntime.so"]}
        assert (clip / "lib/libavsbg_onnxruntime.so").is_file()
    if name == "tensorrt":
        assert {"libavsbg_tensorrt.so", "libavsbg_tensorrt_register.so"} <= {
            one.name for one in (clip / "lib").iterdir()
        }


def test_the_script_that_builds_an_engine_names_every_input(export_once, tmp_path: Path) -> None:
    _, stream = write(export_once("avs-bg, waveform").bundle, tmp_path, "tensorrt", "--max-streams", 6)
    tools, asked = tmp_path / "bin", tmp_path / "asked"
    tools.mkdir()
    (tools / "trtexec").write_text(f'#!/bin/sh\nprintf "%s\\n" "$PWD" "$@" > {asked}\n')
    (tools / "trtexec").chmod(0o755)
    subprocess.run([stream / "build_engines.sh"], env={"PATH": f"{tools}:/usr/bin:/bin"}, check=True)
    folder, *arguments = asked.read_text().splitlines()
    assert Path(folder) == stream
    options = dict(argument.lstrip("-").partition("=")[::2] for argument in arguments)
    largest = dict(part.split(":") for part in options["maxShapes"].split(","))
    session = onnxruntime.InferenceSession(str(stream / options["onnx"]))
    assert set(largest) == {value.name for value in session.get_inputs()}
    assert largest["frames"] == "6x64x96x3"
    assert options["saveEngine"] == "1/model.plan"


@pytest.mark.parametrize("precision", [None, "fp16", "tf32"])
def test_fp32_values_of_an_engine_are_rounded_in_tf32_alone(precision: Precision | None) -> None:
    header = '<ir_version: 10, opset_import: ["" : 20]>'
    model = onnx.parser.parse_model(f"{header} g (float[N, 3] x) => (float[N, 3] y) {{ y = Neg(x) }}")
    script = _build_script({"max_batch_size": 6}, model, [], precision)
    assert ("--noTF32" in script) == (precision != "tf32")
    assert "--maxShapes=x:6x3" in script
