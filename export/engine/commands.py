"""Command lines of NVIDIA's own tools for the same build, to repeat it without avsbg.

They are TensorRT's: for an engine of TensorRT for RTX, they make its counterpart on a device with TensorRT.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from avsbg.export.engine.request import EngineRequest
from avsbg.runtime.bundle.engine_record import ProfileRecord

# The user fills in the path of the libraries (`avsbg doctor --format json` prints it). Polygraphy
# only opens a library, which then has to register its operators itself.
PLUGIN_FILE = "/path/to/libavsbg_tensorrt.so"
REGISTERING_FILE = "/path/to/libavsbg_tensorrt_register.so"
_SHAPES = {"min": "smallest", "opt": "optimal", "max": "largest"}


def command_lines(request: EngineRequest, onnx_file: str, profile: Mapping[str, ProfileRecord]) -> dict[str, str]:
    """The command lines, by the tool's name, to be run inside the bundle."""
    engine = onnx_file.removesuffix(".onnx") + ".engine"
    trtexec = ["trtexec", f"--onnx={onnx_file}", f"--saveEngine={engine}", "--stronglyTyped"]
    polygraphy = ["polygraphy", "convert", onnx_file, "--convert-to", "trt", "-o", engine, "--strongly-typed"]
    for flag, which in _SHAPES.items():
        shapes = {name: [str(size) for size in getattr(record, which)] for name, record in profile.items()}
        trtexec.append(f"--{flag}Shapes=" + ",".join(f"{name}:{'x'.join(shape)}" for name, shape in shapes.items()))
        polygraphy += [f"--trt-{flag}-shapes", *(f"{name}:[{','.join(shape)}]" for name, shape in shapes.items())]
    workspace, streams, is_tf32 = request.workspace_mb, request.aux_streams, request.precision == "tf32"
    for holds, of_trtexec, of_polygraphy in (
        (not is_tf32, ["--noTF32"], []),
        (is_tf32, [], ["--tf32"]),
        (request.operator == "plugin", [f"--dynamicPlugins={PLUGIN_FILE}"], ["--plugins", REGISTERING_FILE]),
        (workspace is not None, [f"--memPoolSize=workspace:{workspace}M"], ["--pool-limit", f"workspace:{workspace}M"]),
        (streams is not None, [f"--maxAuxStreams={streams}"], ["--max-aux-streams", str(streams)]),
        (request.version_compatible, ["--versionCompatible"], ["--version-compatible"]),
        (request.strip_weights, ["--stripWeights"], ["--strip-plan"]),
    ):
        if holds:
            trtexec += of_trtexec
            polygraphy += of_polygraphy
    return {"trtexec": shlex.join(trtexec), "polygraphy": shlex.join(polygraphy)}
