"""The manifest of a bundle: what is in it, how to feed it, and the hash of each of its files.

The models here are the format. Their JSON Schema is committed beside this file as `manifest.schema.json`; print it with
`python -m avsbg.runtime.manifest`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from avsbg.runtime.errors import BundleError

MANIFEST = "manifest.json"
FORMAT = 1
# A manifest describes a handful of graphs; anything larger is a mistake or an attack.
MAX_MANIFEST_BYTES = 4 * 2**20


def _check_path(path: str) -> str:
    parts = path.split("/")
    if "\\" in path or "\0" in path or ":" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r} is not a relative POSIX path inside the bundle")
    return path


RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_check_path)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Dimension = Annotated[int, Field(ge=0, le=2**40)] | Annotated[str, StringConstraints(min_length=1, max_length=64)]
DType = Literal["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]
Triple = tuple[float, float, float]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CheckpointRecord(_Record):
    """A checkpoint that weights were taken from."""

    role: Literal["network", "vggish"]
    name: str = Field(description="file name, without its directory")
    sha256: Sha256


class WeightsRecord(_Record):
    """Where the weights come from: a seed (random weights), or checkpoint files."""

    seed: int | None = None
    checkpoints: tuple[CheckpointRecord, ...] = ()

    @model_validator(mode="after")
    def _one_origin(self) -> WeightsRecord:
        if (self.seed is None) == (not self.checkpoints):
            raise ValueError("weights come from either a seed or checkpoints, and exactly one of the two")
        return self


class ClipRecord(_Record):
    """What one clip is: T frames, one per second, with T seconds of sound."""

    frames: int = Field(ge=1, le=4096, description="T, frames per clip")
    height: int = Field(ge=1, le=16384, description="pixels")
    width: int = Field(ge=1, le=16384, description="pixels")
    seconds_per_frame: float = Field(default=1.0, ge=1.0, le=1.0, description="the networks know no other")
    sample_rate: Literal[16000] = Field(default=16000, description="Hz, mono; VGGish knows no other")
    audio: Literal["waveform", "log_mel", "audio_embedding"] = Field(description="the audio input's form and name")


class PreprocessingRecord(_Record):
    """How a video becomes `frames` (the published data preparation); normalisation is inside the graph."""

    colour_order: Literal["RGB"] = "RGB"
    scale: float = Field(default=1 / 255, description="multiplies the uint8 value before normalisation")
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    resize: Literal["bilinear"] = Field(default="bilinear", description="without antialiasing; aspect ratio ignored")
    frame_offset: float = Field(default=15 / 16, ge=0, lt=1, description="second l is shown by its frame at l + offset")


class TensorRecord(_Record):
    """A named tensor; a dimension is a size or the name of a symbol (`clips`)."""

    name: str = Field(min_length=1, max_length=255)
    dtype: DType
    shape: tuple[Dimension, ...] = Field(max_length=16)


class GraphRecord(_Record):
    """An ONNX graph, its contract and what it is made of."""

    file: RelativePath
    external_data: tuple[RelativePath, ...] = Field(default=(), description="files that hold its weights")
    operator: Literal["custom", "plain"] = Field(
        description="custom: nodes of the domain avsbg with a function body; plain: standard operators only"
    )
    precision: Precision = Field(default="fp32", description="the type that the graph's products are computed in")
    opset: int = Field(ge=1)
    ir_version: int = Field(ge=1)
    inputs: tuple[TensorRecord, ...] = Field(min_length=1)
    outputs: tuple[TensorRecord, ...] = Field(min_length=1)
    node_count: Count
    operators: dict[str, Count] = Field(description="nodes per operator; other domains as domain::operator")

    @model_validator(mode="after")
    def _unique_names(self) -> GraphRecord:
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if len(set(names)) != len(names):
                raise ValueError(f"{kind} names repeat: {', '.join(names)}")
        return self


class ParametersRecord(_Record):
    """Parameter counts of the network."""

    published: Count = Field(description="every parameter of the checkpoint, as the papers count")
    inference: Count = Field(description="those that the exported graph holds")


class VectorsRecord(_Record):
    """A file of test vectors: inputs and what PyTorch made of them."""

    file: RelativePath
    clips: int = Field(ge=1)
    seed: int
    inputs: tuple[TensorRecord, ...] = Field(min_length=1)
    outputs: tuple[TensorRecord, ...] = Field(min_length=1)
    intermediates: tuple[TensorRecord, ...] = ()


class DeviceRecord(_Record):
    """What an engine was built for."""

    compute_capabilities: tuple[Annotated[int, Field(ge=50, le=999)], ...] = Field(
        min_length=1, description="87 is 8.7"
    )
    name: str | None = Field(default=None, max_length=255, description="the GPU it was built on; none if built without")
    power_mode: str | None = Field(default=None, max_length=255, description="of a Jetson, while the engine was built")


class PluginRecord(_Record):
    """The plugin library that an engine needs."""

    sha256: Sha256
    operators: tuple[str, ...] = Field(min_length=1)
    version: str
    namespace: str


class ProfileRecord(_Record):
    """The shapes that an input may have: the smallest, the one that was optimised for, the largest."""

    smallest: tuple[Count, ...] = Field(max_length=16)
    optimal: tuple[Count, ...] = Field(max_length=16)
    largest: tuple[Count, ...] = Field(max_length=16)


class RealisedRecord(_Record):
    """In which types an engine really computes, read back from the engine or from its builder.

    Products are matrix products, convolutions and correlations.
    """

    source: Literal["inspector", "builder log"]
    layers: Count
    products: dict[str, Count] = Field(
        description="matrix products, convolutions and correlations by their inputs' type"
    )
    differing: tuple[str, ...] = Field(default=(), description="products that did not get the type asked for, with it")


class MemoryRecord(_Record):
    """What the builder reported, in bytes, for the profile's largest shapes; none where it did not."""

    activation: Count | None = None
    scratch: Count | None = None
    weights: Count | None = None


class AccuracyRecord(_Record):
    """What a precision costs: the graph that an engine was built from against the bundle's vectors, in ONNX Runtime."""

    largest_difference: float = Field(description="of a logit")
    flipped: float = Field(ge=0, le=1, description="share of pixels on the other side of 0.5")
    miou: float = Field(ge=0, le=1, description="mean over frames of the IoU between the masks")
    least_miou: float = Field(ge=0, le=1, description="the gate: what the precision must reach")
    passed: bool


class EngineRecord(_Record):
    """An engine: what it was built from, for what, how, and what came out."""

    file: RelativePath
    layers_file: RelativePath = Field(description="JSON: each layer with its realised types")
    graph: str = Field(description="the graph of this bundle that it was built from")
    graph_sha256: Sha256
    backend: Literal["tensorrt", "tensorrt-rtx"]
    operator: Literal["plugin", "plain"]
    precision: Precision = Field(description="as requested")
    realised: RealisedRecord
    accuracy: AccuracyRecord | None = Field(default=None, description="none where no runtime here can run the graph")
    device: DeviceRecord
    profile: dict[str, ProfileRecord] = Field(min_length=1)
    options: dict[str, str | int | bool] = Field(description="of the builder")
    memory: MemoryRecord
    plugin: PluginRecord | None = None
    versions: dict[str, str] = Field(description="TensorRT, the CUDA driver and avsbg, when it was built")
    build_seconds: float = Field(ge=0)
    commands: dict[str, str] = Field(default={}, description="other tools' command lines for the same build")
    created: AwareDatetime

    @model_validator(mode="after")
    def _plugin_where_needed(self) -> EngineRecord:
        if (self.plugin is None) != (self.operator == "plain"):
            raise ValueError("an engine has a plugin record exactly if its operator is the plugin")
        return self


class FileRecord(_Record):
    """What a file of the bundle must be."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, le=2**40)]


class Manifest(_Record):
    """Everything that a user of a bundle needs to know before opening any other of its files."""

    format: Literal[1] = Field(default=1, description="version of this format")
    name: str = Field(min_length=1, max_length=255)
    variant: dict[str, str | bool] = Field(description="the network and its ablation switches")
    weights: WeightsRecord
    clip: ClipRecord
    preprocessing: PreprocessingRecord = PreprocessingRecord()
    graphs: dict[str, GraphRecord] = Field(min_length=1)
    parameters: ParametersRecord
    flops: Count | None = Field(default=None, description="floating-point operations per clip (one multiply-add is 2)")
    vectors: tuple[VectorsRecord, ...] = ()
    engines: dict[str, EngineRecord] = Field(default={}, description="TensorRT engines, made by `avsbg build`")
    files: dict[RelativePath, FileRecord] = Field(min_length=1, max_length=4096)
    versions: dict[str, str] = Field(description="tools that made the bundle")
    created: AwareDatetime

    @model_validator(mode="after")
    def _files_are_listed(self) -> Manifest:
        used = {record.file for record in self.vectors}
        for graph in self.graphs.values():
            used |= {graph.file, *graph.external_data}
        for name, engine in self.engines.items():
            used |= {engine.file, engine.layers_file}
            if engine.graph not in self.graphs:
                raise ValueError(f"the engine {name} was built from the graph {engine.graph!r}, which is not listed")
        if MANIFEST in self.files:
            raise ValueError(f"files must not list {MANIFEST} itself")
        if missing := sorted(used - set(self.files)):
            raise ValueError(f"not listed under files, though used: {', '.join(missing)}")
        return self


def read_manifest(path: Path) -> Manifest:
    """Read and validate a manifest file.

    Raises:
        BundleError: it cannot be read, is no JSON, is of another format version, or a field is not valid.
    """
    try:
        size = path.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} has {size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}.")
        text = path.read_text(encoding="utf-8")
        version = _format_version(json.loads(text))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as JSON: {error}.", _REMAKE) from error
    if version != FORMAT:
        raise BundleError(
            f"{path} has format {version!r}, this version of avsbg reads format {FORMAT}.",
            "Export the bundle again, or install the version of avsbg that made it.",
        )
    try:
        # Strict: a number in quotes was typed by hand, and guessing what it means hides the next mistake.
        return Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise BundleError(f"{path} is not a valid manifest: {_first_problems(error)}.", _REMAKE) from error


_REMAKE = "Restore the file as `avsbg export` wrote it, or export the bundle again."


def _format_version(document: object) -> object:
    return document.get("format") if isinstance(document, dict) else None


def _first_problems(error: ValidationError, limit: int = 3) -> str:
    problems = []
    for detail in error.errors(include_url=False)[:limit]:
        where = ".".join(str(part) for part in detail["loc"]) or "manifest"
        value = repr(detail["input"])
        shown = f" (got {value})" if len(value) <= 80 else ""
        problems.append(f"{where}: {detail['msg']}{shown}")
    more = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {more} more" if more > 0 else "")


def schema() -> str:
    """The JSON Schema of the manifest, as committed in `manifest.schema.json`."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    return json.dumps(document, indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
