"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from typer import Argument, Option

BACKENDS = "onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino, torch, tensorrt or tensorrt-rtx"
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
        help=f"auto, the fastest that can run here, measured once and told; or {BACKEND_HELP}.",
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
        help="Of the correlation operator. ONNX Runtime: native (our kernel), function (the graph's own body) or plain "
        "(standard operators). PyTorch: efficient, published, on a GPU native. TensorRT: plugin or plain. "
        "onnxruntime-tensorrt: plugin, function or plain.",
        rich_help_panel=PANEL,
    ),
]
Precision = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="fp32, or one that `avsbg quantize` or `avsbg build` made: fp16, bf16, int8, fp8. OpenVINO and PyTorch "
        "have bf16 without.",
        rich_help_panel=PANEL,
    ),
]
Device = Annotated[
    str | None,
    Option(
        metavar="DEVICE",
        help="cpu, cuda or cuda:N (the GPU N). PyTorch takes the processor by default.",
        rich_help_panel=PANEL,
    ),
]
Composite = Annotated[
    bool, Option("--composite", help="On a GPU: correlate with PyTorch's own operators, not with our CUDA kernels.")
]
Engine = Annotated[
    str | None, Option(metavar="NAME", help="The engine to load, where several would fit.", rich_help_panel=PANEL)
]
Trust = Annotated[
    bool,
    Option(
        "--trust",
        help="Load an engine that was not built by you on this machine: it is native code.",
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
    int | None, Option(min=1, metavar="N", help="By default the backend's choice.", rich_help_panel=PANEL)
]
Mode = Annotated[
    Literal["clip", "stream"] | None,
    Option(
        help="clip: the network sees T frames at a time. stream: each frame is encoded once, with the graphs of "
        "`avsbg export --stream`. By default clips; live sources are streamed if the bundle can be."
    ),
]
Threshold = Annotated[float, Option(metavar="P", help="A pixel sounds where its probability exceeds this.")]
NoSound = Annotated[bool, Option("--no-sound", help="Give the network silence, not the sound track.")]
Masks = Annotated[
    Literal["png", "video", "none"],
    Option(help="Masks as PNG files, as one lossless video (masks.mkv), or not at all."),
]
RunLengths = Annotated[bool, Option("--rle", help="Also write masks.coco.json: COCO's run lengths.")]
NoOverlay = Annotated[bool, Option("--no-overlay", help="Leave out overlay.mp4 and overlay.png.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace what is there already.")]
Format = Annotated[Literal["text", "json"], Option("--format", help="Print a text for people, or JSON.")]
DataRoot = Annotated[Path, Argument(help=DATA_HELP)]
DataFolder = Annotated[Path, Option(help=DATA_HELP)]
Task = Annotated[TaskName, Option(metavar="TASK", help="s4: one sounding object; ms3: several.")]
