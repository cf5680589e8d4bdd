"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from typer import Argument, Option

BACKEND_SYNTAX = "BACKEND[:IMPLEMENTATION][:PRECISION]"
BACKEND_HELP = (
    "onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino, torch, tensorrt or tensorrt-rtx; the "
    "IMPLEMENTATION of the operator: function (ONNX body), native (our kernel) or plain (standard operators) with "
    "onnxruntime, efficient or published with torch, on a GPU native (our kernels) too; a precision that "
    "`avsbg convert` made, e.g. onnxruntime:native:fp16; openvino:bf16, where the processor computes in it; an engine "
    "that `avsbg build` made, e.g. tensorrt:plugin:fp16"
)
DATA_HELP = "The folder that holds Single-source or Multi-sources."

TaskName: TypeAlias = Literal["s4", "ms3"]
SplitName: TypeAlias = Literal["train", "val", "test"]

BundlePath = Annotated[Path, Argument(help="The bundle, a directory that `avsbg export` made.")]
Device = Annotated[
    str | None,
    Option(metavar="cpu|cuda|cuda:N", help="Where the backend runs: torch on the CPU by default; N counts GPUs."),
]
Composite = Annotated[
    bool, Option("--composite", help="On a GPU: correlate with PyTorch's own operators, not with our CUDA kernels.")
]
Engine = Annotated[str | None, Option(metavar="NAME", help="The engine to load, where several would fit.")]
Trust = Annotated[
    bool, Option("--trust", help="Load an engine that was not built by you on this machine: it is native code.")
]
IgnoreAccuracy = Annotated[
    bool,
    Option("--ignore-accuracy", help="Run a precision or engine that missed its accuracy threshold, with a warning."),
]
Threads = Annotated[int | None, Option(min=1, help="Threads; by default the backend's choice.")]
Threshold = Annotated[float, Option(help="A pixel sounds where its probability exceeds this.")]
Silent = Annotated[bool, Option("--silent", help="Give the network silence, not the soundtrack.")]
DataRoot = Annotated[Path, Argument(help=DATA_HELP)]
DataFolder = Annotated[Path, Option(help=DATA_HELP)]
Task = Annotated[TaskName, Option(help="s4: one sounding object; ms3: several.")]
