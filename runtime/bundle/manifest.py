"""The manifest of a bundle: what is in it, how to feed it, and the hash of each of its files.

The models here are the format; `manifest.schema.json` beside this file is what `schema()` returns.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from avsbg.runtime.bundle.engine_record import AccuracyRecord, EngineRecord
from avsbg.runtime.bundle.graph_name import STREAM_ROLES
from avsbg.runtime.bundle.quantisation_record import QuantisationRecord
from avsbg.runtime.bundle.record_types import (
    Count,
    Dimension,
    DType,
    Precision,
    QuantizedPrecision,
    Record,
    RelativePath,
    Sha256,
    validate_shape,
)
from avsbg.runtime.errors import BundleError

MANIFEST = "manifest.json"
FORMAT = 1
# A manifest describes a handful of graphs; anything larger is a mistake or an attack.
MAX_MANIFEST_BYTES = 4 * 2**20

Triple = tuple[float, float, float]


class CheckpointRecord(Record):
    """A checkpoint that weights were taken from."""

    role: Literal["network", "vggish", "compact"]
    name: str = Field(description="file name, without its directory")
    sha256: Sha256


class WeightsRecord(Record):
    """The origin of the weights: a seed (random weights), or checkpoint files."""

    seed: int | None = None
    checkpoints: tuple[CheckpointRecord, ...] = ()
    audio_encoder: Literal["vggish", "compact"] = Field(
        default="vggish", description="what makes embeddings of the sound; inside the graph unless it takes embeddings"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> WeightsRecord:
        if (self.seed is None) == (not self.checkpoints):
            raise ValueError("weights come from either a seed or checkpoints, and exactly one of the two")
        return self


class ClipRecord(Record):
    """One clip: T frames, one per second, with T seconds of sound."""

    frames: int = Field(ge=1, le=4096, description="T, frames per clip")
    height: int = Field(ge=1, le=16384, description="pixels")
    width: int = Field(ge=1, le=16384, description="pixels")
    seconds_per_frame: float = Field(default=1.0, ge=1.0, le=1.0, description="the networks know no other")
    sample_rate: int = Field(default=16000, ge=8000, le=22050, description="Hz, mono; VGGish knows 16000 alone")
    audio: Literal["waveform", "log_mel", "audio_embedding", "spectrogram"] = Field(
        description="the audio input's form and name"
    )
    shared_sound: bool = Field(
        default=False, description="whether every frame takes the whole sound of its clip, instead of its second's"
    )

    ADDED: ClassVar[frozenset[str]] = frozenset({"shared_sound"})

    @model_validator(mode="after")
    def _size(self) -> ClipRecord:
        if problem := validate_shape((self.frames, self.height, self.width, 3)):
            raise ValueError(f"a clip {problem}")
        return self


class PreprocessingRecord(Record):
    """The way from a video to `frames` (the published data preparation); normalisation is inside the graph."""

    colour_order: Literal["RGB"] = "RGB"
    scale: float = Field(default=1 / 255, description="multiplies the uint8 value before normalisation")
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    resize: Literal["bilinear"] = Field(default="bilinear", description="without antialiasing; aspect ratio ignored")
    frame_offset: float = Field(default=15 / 16, ge=0, lt=1, description="second l is shown by its frame at l + offset")


class TensorRecord(Record):
    """A named tensor; a dimension is a size or the name of a symbol (`clips`)."""

    name: str = Field(min_length=1, max_length=255)
    dtype: DType
    shape: tuple[Dimension, ...] = Field(max_length=16)

    @property
    def single_shape(self) -> tuple[int, ...]:
        """The shape for one clip or one stream: 1 for each symbol."""
        return tuple(1 if isinstance(size, str) else size for size in self.shape)

    @model_validator(mode="after")
    def _size(self) -> TensorRecord:
        if problem := validate_shape(self.shape):
            raise ValueError(f"the tensor {self.name} {problem}")
        return self


class MergeRecord(Record):
    """Neighbouring operations of the network that a graph computes as smaller ones, exactly but for rounding."""

    kind: Literal["enlarged map", "one channel by columns"] = Field(description="see docs/export.md")
    nodes: tuple[str, ...] = Field(min_length=2, description="the network's operations, named after its modules")
    parameters: tuple[str, ...] = Field(min_length=1, description="those that the graph holds in merged form only")
    operations_before: Count = Field(description="of products, for one frame; a multiply-add is two")
    operations_after: Count


class GraphRecord(Record):
    """An ONNX graph, its contract and what it is made of."""

    file: RelativePath
    external_data: tuple[RelativePath, ...] = Field(default=(), description="files that hold its weights")
    operator: Literal["custom", "plain"] = Field(
        description="custom: nodes of the domain avsbg with a function body; plain: standard operators only"
    )
    precision: Precision = Field(default="fp32", description="the type that the graph's products are computed in")
    rest: Precision | None = Field(
        default=None, description="of what a quantised graph does not quantise, by the table of rules; none: fp32"
    )
    accuracy: AccuracyRecord | None = Field(default=None, description="none where that was not measured")
    opset: int = Field(ge=1)
    ir_version: int = Field(ge=1)
    inputs: tuple[TensorRecord, ...] = Field(min_length=1)
    outputs: tuple[TensorRecord, ...] = Field(min_length=1)
    node_count: Count
    operators: dict[str, Count] = Field(description="nodes per operator; other domains as domain::operator")
    merges: tuple[MergeRecord, ...] = Field(default=(), description="what was merged at the export")
    unmerged: RelativePath | None = Field(
        default=None, description="safetensors file of the parameters that are merged in the graph, as they were"
    )

    @property
    def files(self) -> set[str]:
        """Every file of the bundle that belongs to the graph."""
        return {self.file, *self.external_data} | ({self.unmerged} if self.unmerged else set())

    @model_validator(mode="after")
    def _unique_names(self) -> GraphRecord:
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            names = [tensor.name for tensor in tensors]
            if len(set(names)) != len(names):
                raise ValueError(f"{kind} names repeat: {', '.join(names)}")
        return self


class ParametersRecord(Record):
    """Parameter counts of the network."""

    published: Count = Field(description="every parameter of the checkpoint, as the papers count")
    inference: Count = Field(description="those that masks depend on, as the network has them before merging")


class VectorsRecord(Record):
    """A file of test vectors: inputs and what PyTorch made of them."""

    file: RelativePath
    clips: int = Field(ge=1)
    seed: int
    inputs: tuple[TensorRecord, ...] = Field(min_length=1)
    outputs: tuple[TensorRecord, ...] = Field(min_length=1)
    intermediates: tuple[TensorRecord, ...] = ()


class FileRecord(Record):
    """The size and hash that a file of the bundle must have."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0, le=2**40)]


class Manifest(Record):
    """Everything that a user of a bundle needs to know before opening any other of its files."""

    format: Literal[1] = Field(default=1, description="version of this format")
    name: str = Field(min_length=1, max_length=255)
    variant: dict[str, str | bool | int] = Field(description="the network and its ablation switches")
    weights: WeightsRecord
    clip: ClipRecord
    preprocessing: PreprocessingRecord = PreprocessingRecord()
    graphs: dict[str, GraphRecord] = Field(min_length=1)
    mixes_frames: str | None = Field(
        default=None,
        description="why a mask needs frames beside its own and its neighbour, so that no stream can be made",
    )
    labels: tuple[str, ...] = Field(
        default=(), max_length=256, description="names of classes, the background first; none for binary masks"
    )
    parameters: ParametersRecord
    flops: Count | None = Field(default=None, description="floating-point operations per clip (one multiply-add is 2)")
    vectors: tuple[VectorsRecord, ...] = ()
    quantisations: dict[QuantizedPrecision, QuantisationRecord] = Field(
        default={}, description="calibrations, made by `avsbg quantize` and `avsbg build`"
    )
    engines: dict[str, EngineRecord] = Field(default={}, description="TensorRT engines, made by `avsbg build`")
    files: dict[RelativePath, FileRecord] = Field(min_length=1, max_length=4096)
    versions: dict[str, str] = Field(description="tools that made the bundle")
    created: AwareDatetime

    ADDED: ClassVar[frozenset[str]] = frozenset({"mixes_frames", "labels"})

    @property
    def uses_audio(self) -> bool:
        """Whether masks depend on sound: not those of a variant without audio, nor of graphs that take none."""
        inputs = {tensor.name for graph in self.graphs.values() for tensor in graph.inputs}
        return self.variant.get("audio") is not False and self.clip.audio in inputs

    @property
    def has_stream(self) -> bool:
        """Whether there are the graphs of a stream."""
        return self.graphs.keys() >= set(STREAM_ROLES)

    @model_validator(mode="after")
    def _files_are_listed(self) -> Manifest:
        used = {record.file for record in self.vectors}.union(*(graph.files for graph in self.graphs.values()))
        for name, engine in self.engines.items():
            used |= engine.files
            if engine.graph not in self.graphs:
                raise ValueError(f"the engine {name} was built from the graph {engine.graph!r}, which is not listed")
        if MANIFEST in self.files:
            raise ValueError(f"files must not list {MANIFEST} itself")
        if missing := sorted(used - set(self.files)):
            raise ValueError(f"not listed under files, though used: {', '.join(missing)}")
        return self


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file; a `BundleError` if it is missing, no JSON, of another format version, or not valid."""
    try:
        size = path.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} has {size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}.")
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as JSON: {error}.", _REMAKE) from error
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is not int or version != FORMAT:  # True and 1.0 are equal to 1
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


def _first_problems(error: ValidationError, limit: int = 3) -> str:
    problems = []
    for detail in error.errors(include_url=False)[:limit]:
        where, value = ".".join(map(str, detail["loc"])) or "manifest", repr(detail["input"])
        problems.append(f"{where}: {detail['msg']}" + (f" (got {value})" if len(value) <= 80 else ""))
    more = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {more} more" if more > 0 else "")


def schema() -> str:
    """The JSON Schema of the manifest, as committed in `manifest.schema.json`."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    return json.dumps(document, indent=2) + "\n"
