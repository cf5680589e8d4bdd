"""Command lines of NVIDIA's own tools for the same build, so that nobody depends on us to repeat it.

They are TensorRT's: for an engine of TensorRT for RTX, they make its counterpart on a device with TensorRT.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from avsbg.export.engine.request import EngineRequest
from avsbg.runtime.bundle.engine_record import ProfileRecord

# Where the plugin library is on the user's machine is theirs to know.
PLUGIN_FILE = "libavsbg_tensorrt.so"


def command_lines(request: EngineRequest, onnx_file: str, profile: Mapping[str, ProfileRecord]) -> dict[str, str]:
    """The command lines, by the tool's name, to be run inside the bundle.

    Args:
        request: what was asked for.
        onnx_file: the graph that was built.
        profile: the shapes of the inputs.
    """
    engine = onnx_file.removesuffix(".onnx") + ".engine"
    return {
        "trtexec": shlex.join(_trtexec(request, onnx_file, engine, profile)),
        "polygraphy": shlex.join(_polygraphy(request, onnx_file, engine, profile)),
    }


def _trtexec(request: EngineRequest, onnx_file: str, engine: str, profile: Mapping[str, ProfileRecord]) -> list[str]:
    def shapes(which: str) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, getattr(record, which)))}" for name, record in profile.items())

    words = [
        "trtexec",
        f"--onnx={onnx_file}",
        f"--saveEngine={engine}",
        "--stronglyTyped",
        f"--minShapes={shapes('smallest')}",
        f"--optShapes={shapes('optimal')}",
        f"--maxShapes={shapes('largest')}",
    ]
    if request.precision != "tf32":
        words.append("--noTF32")
    if request.operator == "plugin":
        words.append(f"--dynamicPlugins={PLUGIN_FILE}")
    if request.workspace_mb is not None:
        words.append(f"--memPoolSize=workspace:{request.workspace_mb}M")
    if request.aux_streams is not None:
        words.append(f"--maxAuxStreams={request.aux_streams}")
    if request.version_compatible:
        words.append("--versionCompatible")
    if request.strip_weights:
        words.append("--stripWeights")
    return words


def _polygraphy(request: EngineRequest, onnx_file: str, engine: str, profile: Mapping[str, ProfileRecord]) -> list[str]:
    def shapes(which: str) -> list[str]:
        return [f"{name}:[{','.join(map(str, getattr(record, which)))}]" for name, record in profile.items()]

    words = ["polygraphy", "convert", onnx_file, "--convert-to", "trt", "-o", engine, "--strongly-typed"]
    for flag, which in (("min", "smallest"), ("opt", "optimal"), ("max", "largest")):
        words += [f"--trt-{flag}-shapes", *shapes(which)]
    if request.precision == "tf32":
        words.append("--tf32")
    if request.operator == "plugin":
        words += ["--plugins", PLUGIN_FILE]
    if request.workspace_mb is not None:
        words += ["--pool-limit", f"workspace:{request.workspace_mb}M"]
    if request.aux_streams is not None:
        words += ["--max-aux-streams", str(request.aux_streams)]
    if request.version_compatible:
        words.append("--version-compatible")
    if request.strip_weights:
        words.append("--strip-plan")
    return words
