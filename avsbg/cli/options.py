"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from typer import Argument, Option

BACKENDS = (
    "onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino, torch, tensorrt, tensorrt-rtx or, on a server of "
    "`avsbg serve triton`, triton:grpc://HOST:PORT/MODEL"
)
BACKEND_HELP = f"{BACKENDS}. All three in one: tensorrt:plugin:fp16, openvino:bf16"
PANEL = "Backend"  # the options of what executes a bundle
DATA_HELP = "The folder that holds Single-source or Multi-sources."

TaskName: TypeAlias = Literal["s4", "ms3"]
SplitName: TypeAlias = Literal["train", "val", "test"]

BundlePath = Annotated[Path, Argument(help="The bundle, a directory that `avsbg export` made.")]
Backend = Annotated[
    str,
    Option(
        metavar="NAME",
        envvar="AVSBG_BACKEND",
        help=f"auto: the fastest that can run here, measured once and printed. Or {BACKEND_HELP}.",
        rich_help_panel=PANEL,
    ),
]
Backends = Annotated[
    list[str] | None, Option(metavar="NAME", help=f"{BACKEND_HELP}. May be repeated.", rich_help_panel=PANEL)
]
Implementation = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="How to compute the correlation operator. ONNX Runtime: native (our kernel), function (the ONNX function "
        "in the graph) or plain (standard operators). PyTorch: efficient, published, or native on a GPU. TensorRT: "
        "plugin or plain. onnxruntime-tensorrt: plugin, function or plain.",
        rich_help_panel=PANEL,
    ),
]
Precision = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="fp32, or one that `avsbg quantize` or `avsbg build` added: fp16, bf16, int8, fp8. OpenVINO and PyTorch "
        "have bf16 without these verbs.",
        rich_help_panel=PANEL,
    ),
]
Device = Annotated[
    str | None,
    Option(
        metavar="DEVICE",
        help="cpu, cuda, or cuda:N for GPU N. PyTorch uses the processor by default.",
        rich_help_panel=PANEL,
    ),
]
Composite = Annotated[
    bool,
    Option(
        "--composite", help="On a GPU: compute the correlation with PyTorch's own operators, not with our CUDA kernels."
    ),
]
Engine = Annotated[
    str | None, Option(metavar="NAME", help="Name of the engine to load, if several fit.", rich_help_panel=PANEL)
]
Trust = Annotated[
    bool,
    Option(
        "--trust",
        help="Load an engine that you did not build on this machine. An engine is native code: it can do anything.",
        rich_help_panel=PANEL,
    ),
]
AllowFailedAccuracy = Annotated[
    bool,
    Option(
        "--allow-failed-accuracy",
        help="Run a precision or engine that missed its accuracy threshold, with a warning.",
        rich_help_panel=PANEL,
    ),
]
Threads = Annotated[
    int | None,
    Option(min=1, metavar="N", help="Processor threads. By default the backend decides.", rich_help_panel=PANEL),
]
MODE_HELP = (
    "clip: the network sees T frames at a time. stream: each frame is encoded once, with the graphs of `avsbg export "
    "--stream`. By default clip"
)
Mode = Annotated[Literal["clip", "stream"] | None, Option(help=f"{MODE_HELP}.")]
Hwaccel = Annotated[
    str | None,
    Option(
        metavar="KIND[:DEVICE]",
        help="Decode frames on hardware, as FFmpeg names it: cuda, cuda:1. By default on the processor.",
    ),
]
Threshold = Annotated[float, Option(metavar="P", help="A pixel sounds where its probability exceeds this.")]
NoSound = Annotated[bool, Option("--no-sound", help="Give the network silence in place of the sound track.")]
Masks = Annotated[
    Literal["png", "video", "none"],
    Option(help="Masks as PNG files, as one lossless video (masks.mkv), or not at all."),
]
RunLengths = Annotated[
    bool, Option("--rle", help="Also write masks.coco.json: a COCO annotation file with run lengths.")
]
NoOverlay = Annotated[bool, Option("--no-overlay", help="Do not write overlay.mp4 and overlay.png.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace existing output.")]
Format = Annotated[Literal["text", "json"], Option("--format", help="Print text, or JSON.")]
DataRoot = Annotated[Path, Argument(help=DATA_HELP)]
DataFolder = Annotated[Path, Option(metavar="FOLDER", help=DATA_HELP)]
Task = Annotated[TaskName, Option(metavar="TASK", help="s4: one sounding object; ms3: several.")]
