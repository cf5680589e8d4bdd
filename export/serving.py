"""Model repositories for Triton's ONNX Runtime and TensorRT backends, and the graph that advances a stream there.

`step` encodes a new frame and decodes the frame before with it. What it keeps of a stream are inputs that the server
feeds back from its outputs ("implicit state"), on the device: the feature maps of the last frame, and those of the one
before, with which the mask of a stream's last frame is made. See
https://github.com/triton-inference-server/server/blob/main/docs/user_guide/implicit_state_management.md
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import onnx_ir as ir
from onnx import TensorProto, helper

from avsbg.export.editor import check_model, describe_model
from avsbg.export.external_data import check_external_data
from avsbg.export.plugin_graph import write_plugin_graph
from avsbg.native_library import native_library
from avsbg.runtime.backends import BackendSpec, OperatorImplementation
from avsbg.runtime.backends.base import converted_graph
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import TensorRecord
from avsbg.runtime.bundle.record_types import Precision
from avsbg.runtime.errors import BackendError
from avsbg.runtime.serving.config import END, START, VALID, Fields, ServeOptions, clip_config, parameters, stream_config
from avsbg.runtime.serving.repository import VERSION, write_model

# The feature maps of a stream's last frame, of the frame before it, and what precedes their names as outputs.
LAST, BEFORE, NEW = "last", "before", "new_"
# The script that makes a repository's engines on the device.
BUILD = "build_engines.sh"
_ENCODE, _DECODE = "encode/", "decode/"


@dataclass(frozen=True)
class StepGraph:
    """The graph of a stream's next frame, and its tensors by what they are for."""

    model: onnx.ModelProto
    inputs: tuple[TensorRecord, ...]  # a frame and its sound
    outputs: tuple[TensorRecord, ...]  # what a mask consists of, and whether there is one
    states: tuple[tuple[TensorRecord, str], ...]  # inputs that are fed back from the outputs named beside them
    external_data: tuple[str, ...]


def build_step(bundle: Bundle, encode: str, decode: str) -> StepGraph:
    """The graph `step` of two graphs of a stream.

    Inputs are those of `encode`, bool START and END `[N, 1]`, and the states; outputs those of `decode`, bool `valid`
    `[N, 1]`, and the states to come. With START there is no mask yet. With END the frame is not looked at: the mask is
    that of the last frame, whose pair is exchanged. Where frames have no partner, there are no states, each frame's
    mask comes at once, and none with END.

    Raises:
        BundleError: a graph does not fit its own record.
    """
    records = [bundle.graph(name) for name in (encode, decode)]
    for record in records:
        check_external_data(bundle, record)
    first, second = (onnx.load(str(bundle.file(record.file)), load_external_data=False) for record in records)
    # Functions keep their names: both graphs have the same ones.
    first = onnx.compose.add_prefix(first, _ENCODE, rename_inputs=False, rename_functions=False)
    second = onnx.compose.add_prefix(second, _DECODE, rename_outputs=False, rename_functions=False)
    batch = first.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    has_partners = any(tensor.name.startswith("partner.") for tensor in records[1].inputs)
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, [batch, 1]) for name in (START, END)]
    nodes, states, news = [helper.make_node("Not", [START if has_partners else END], [VALID], name=VALID)], [], []
    for tensor in records[0].outputs:
        stage = tensor.name.partition(".")[2]
        new, fused, partner = _ENCODE + tensor.name, f"{_DECODE}{tensor.name}", f"{_DECODE}partner.{stage}"
        if not has_partners:
            nodes.append(helper.make_node("Identity", [new], [fused], name=fused))
            continue
        last, before = f"{LAST}.{stage}", f"{BEFORE}.{stage}"
        start, nodes_of_start = _widen(START, stage, len(tensor.shape))
        end, nodes_of_end = _widen(END, stage, len(tensor.shape))
        nodes += [
            *nodes_of_start,
            *nodes_of_end,
            helper.make_node("Identity", [last], [fused], name=fused),
            helper.make_node("Where", [end, before, new], [partner], name=partner),
            helper.make_node("Identity", [new], [NEW + last], name=NEW + last),
            # A stream of one frame: it is its own partner.
            helper.make_node("Where", [start, new, last], [NEW + before], name=NEW + before),
        ]
        kind, shape = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), tensor.shape[1:]
        for name in (last, before):
            states.append(helper.make_tensor_value_info(name, kind, [batch, *shape]))
            news.append(helper.make_tensor_value_info(NEW + name, kind, [batch, *shape]))
    valid = helper.make_tensor_value_info(VALID, TensorProto.BOOL, [batch, 1])
    graph = helper.make_graph(
        [*first.graph.node, *nodes, *second.graph.node],
        "step",
        [*first.graph.input, *flags, *states],
        [*second.graph.output, valid, *news],
        [*first.graph.initializer, *second.graph.initializer],
        value_info=[*first.graph.value_info, *first.graph.output, *second.graph.input, *second.graph.value_info],
    )
    for value in graph.output:  # of two graphs that name the same dimension
        value.type.tensor_type.shape.dim[0].dim_param = batch
    model = helper.make_model(graph, opset_imports=second.opset_import, functions=second.functions)
    model.ir_version = second.ir_version
    described = describe_model(ir.from_proto(model))
    tensors = {tensor.name: tensor for side in ("inputs", "outputs") for tensor in described[side]}
    return StepGraph(
        model,
        tuple(tensors[value.name] for value in first.graph.input),
        tuple(tensors[value.name] for value in (*second.graph.output, valid)),
        tuple((tensors[value.name], NEW + value.name) for value in states),
        tuple(dict.fromkeys(name for record in records for name in record.external_data)),
    )


def _widen(flag: str, stage: str, rank: int) -> tuple[str, list[onnx.NodeProto]]:
    """A flag `[N, 1]` as `[N, 1, ...]` of a rank: its name, and the nodes that make it."""
    name = f"{flag}.{stage}"
    axes = helper.make_node("Constant", [], [f"{name}.axes"], name=f"{name}.axes", value_ints=list(range(2, rank)))
    return name, [axes, helper.make_node("Unsqueeze", [flag, f"{name}.axes"], [name], name=name)]


def write_graph_repository(
    bundle: Bundle, repository: Path, options: ServeOptions, spec: BackendSpec, *, replace: bool = False
) -> list[Path]:
    """Write the models that Triton executes by ONNX Runtime or TensorRT, without avsbg on the server.

    ONNX Runtime takes the graphs as they are, with `onnxruntime:native` our operator's library too, which lies in
    `lib/` beside the version: LD_LIBRARY_PATH has to name it. TensorRT takes engines, which only the device can
    make: the graphs lie in `graph/`, and `build_engines.sh` makes the engines of them by trtexec.

    Args:
        bundle, repository, options, replace: as of `write_python_repository`.
        spec: `onnxruntime` or `tensorrt`, the operator's implementation, and the precision of the graphs.

    Returns:
        the models' folders.

    Raises:
        BackendError: Triton has no such backend, or the bundle no such graph.
        NativeLibraryError: the library that is asked for was not built.
        OutputError: a model of that name is there, or the folder cannot be written.
    """
    if spec.backend not in ("onnxruntime", "tensorrt"):
        hint = "Choose one of: python, onnxruntime, tensorrt."
        raise BackendError(f"Triton's backends here do not include {spec.backend!r}.", hint)
    if spec.backend == "tensorrt" and options.gpu is None:
        options = replace_fields(options, gpu=0)  # it runs nowhere else
    implementation = spec.operator or OperatorImplementation.PLAIN
    if spec.backend == "tensorrt" and implementation not in (
        OperatorImplementation.PLAIN,
        OperatorImplementation.PLUGIN,
    ):
        raise BackendError(
            f"TensorRT has no implementation {implementation!s} of the operator.", "It has plain, plugin."
        )
    if spec.rest is not None:
        raise BackendError(
            f"{spec}: the rest of a quantised graph is that of its file here.", f"Leave out {spec.rest}."
        )
    uses_library = implementation in (OperatorImplementation.NATIVE, OperatorImplementation.PLUGIN)
    libraries = _libraries(spec.backend) if uses_library else []
    told = parameters(precision=spec.precision, operator=implementation)
    executed: Fields = {"backend": spec.backend, "parameters": told}
    if spec.backend == "onnxruntime" and libraries:
        executed["model_operations"] = {"op_library_filename": [libraries[0].name]}
    clip = bundle.graph(_graph(bundle, "clip", spec, implementation))
    check_external_data(bundle, clip)
    model = onnx.load(str(bundle.file(clip.file)), load_external_data=False)
    written = [
        _write(
            bundle, repository, clip_config(clip, options, executed), model, clip.external_data,
            spec=spec, libraries=libraries, replace=replace,
        )
    ]  # fmt: skip
    if bundle.manifest.has_stream:
        encode = _graph(bundle, "encode", spec, implementation)
        step = build_step(bundle, encode, _graph(bundle, "decode", spec, implementation))
        config = stream_config(step.inputs, step.outputs, options, executed, step.states, keeps_streams=False)
        written.append(
            _write(
                bundle, repository, config, step.model, step.external_data,
                spec=spec, libraries=libraries, replace=replace,
            )
        )  # fmt: skip
    return written


def _graph(bundle: Bundle, role: str, spec: BackendSpec, implementation: OperatorImplementation) -> str:
    """The name of the graph of a role, in the form and precision asked for."""
    name = role
    if implementation is OperatorImplementation.PLAIN and bundle.graph(role).operator == "custom":
        name = str(GraphName.parse(role).plain())
    precision = spec.precision
    if precision is None or bundle.graph(name).precision == precision:
        return name
    return converted_graph(bundle, name, precision)


def _libraries(backend: str) -> list[Path]:
    """The library to load, first, and those that it loads itself."""
    if backend == "onnxruntime":
        return [native_library("onnxruntime").path]
    plugin = native_library("tensorrt").path
    return [plugin.with_name("libavsbg_tensorrt_register.so"), plugin, native_library("cuda").path]


def _write(
    bundle: Bundle,
    repository: Path,
    config: Fields,
    model: onnx.ModelProto,
    external_data: Sequence[str],
    *,
    spec: BackendSpec,
    libraries: Sequence[Path],
    replace: bool,
) -> Path:
    """Write a model's folder: the graph with its weights, the libraries, and for TensorRT what makes the engine."""
    is_engine = spec.backend == "tensorrt"

    def fill(version: Path) -> None:
        # A graph with external data is a folder in place of a file.
        folder = version.parent / "graph" if is_engine else version / "model.onnx"
        folder.mkdir()
        for name in external_data:
            shutil.copyfile(bundle.file(name), folder / name)
        file = folder / "model.onnx"
        file.write_bytes(model.SerializeToString())
        check_model(file)
        if is_engine and libraries:
            write_plugin_graph(file, file)
        if libraries:
            (version.parent / "lib").mkdir()
        for library in libraries:
            shutil.copy(library, version.parent / "lib" / library.name)
        if is_engine:
            script = version.parent / BUILD
            script.write_text(_build_script(config, model, libraries, spec.precision), encoding="utf-8")
            script.chmod(0o755)

    return write_model(repository, config, fill, replace=replace)


def _build_script(
    config: Fields, model: onnx.ModelProto, libraries: Sequence[Path], precision: Precision | None
) -> str:
    """A shell script that makes the engine of a model on the device, with trtexec of the server's TensorRT."""
    largest = int(config["max_batch_size"])
    shapes: dict[str, list[int | None]] = {}
    for value in model.graph.input:
        sizes = [size.dim_value or None for size in value.type.tensor_type.shape.dim]
        shapes[value.name] = sizes
    command = [
        "trtexec",
        "--onnx=graph/model.onnx",
        f"--saveEngine={VERSION}/model.plan",
        "--stronglyTyped",
        *(() if precision == "tf32" else ("--noTF32",)),
    ]
    for flag, batch in (("min", 1), ("opt", max(1, largest // 2)), ("max", largest)):
        texts = [f"{name}:{'x'.join(str(size or batch) for size in sizes)}" for name, sizes in shapes.items()]
        command.append(f"--{flag}Shapes={','.join(texts)}")
    plugins = [library for library in libraries if not library.stem.endswith("_register")]
    command += [f"--dynamicPlugins=lib/{plugins[0].name}"] if plugins else []
    return (
        "#!/bin/sh\n"
        "# Makes this model's engine, on the device that will serve it, by trtexec of the server's TensorRT.\n"
        f'set -e\ncd "$(dirname "$0")"\nexport LD_LIBRARY_PATH="$PWD/lib:$LD_LIBRARY_PATH"\n{shlex.join(command)}\n'
    )
