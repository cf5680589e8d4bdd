"""Records of TensorRT engines in a manifest: what each was built from, for which device, and what came out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from avsbg.runtime.bundle.quantisation_record import CalibrationRecord
from avsbg.runtime.bundle.record_types import Count, Precision, Record, RelativePath, Sha256, validate_shape

ComputeCapability = Annotated[int, Field(ge=50, le=999)]


class DeviceRecord(Record):
    """The devices that an engine was built for."""

    compute_capabilities: tuple[ComputeCapability, ...] = Field(min_length=1, description="87 is 8.7")
    name: str | None = Field(default=None, max_length=255, description="the GPU it was built on; none if built without")
    multiprocessors: Count | None = Field(default=None, description="of that GPU")
    memory_gib: Count | None = Field(default=None, description="of that GPU, up to a power of two")
    module: str | None = Field(default=None, max_length=255, description="the Jetson's name in the device tree")
    power_mode: str | None = Field(default=None, max_length=255, description="of a Jetson, while the engine was built")


class PluginRecord(Record):
    """The plugin library that an engine needs."""

    sha256: Sha256
    operators: tuple[str, ...] = Field(min_length=1)
    version: str
    namespace: str


class ProfileRecord(Record):
    """The shapes that an input may have: the smallest, the one that was optimised for, the largest."""

    smallest: tuple[Count, ...] = Field(min_length=1, max_length=16)
    optimal: tuple[Count, ...] = Field(min_length=1, max_length=16)
    largest: tuple[Count, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _size(self) -> ProfileRecord:
        for shape in (self.smallest, self.optimal, self.largest):
            if problem := validate_shape(shape):
                raise ValueError(f"a shape of the profile {problem}")
        return self


class RealisedRecord(Record):
    """In which types an engine really computes, read back from the engine or from its builder.

    Products are matrix products, convolutions and correlations.
    """

    source: Literal["inspector", "builder log"]
    layers: Count
    products: dict[str, Count] = Field(
        description="matrix products, convolutions and correlations by their inputs' type"
    )
    differing: tuple[str, ...] = Field(default=(), description="products that did not get the type asked for, with it")
    unreported: tuple[str, ...] = Field(default=(), description="products of whose type the source does not say enough")


class MemoryRecord(Record):
    """Memory as the builder reported it, in bytes, for the profile's largest shapes; none where it did not."""

    activation: Count | None = None
    scratch: Count | None = None
    weights: Count | None = None


class AccuracyRecord(Record):
    """The cost of a precision, in ONNX Runtime on the CPU: a graph's masks against PyTorch's on the test vectors.

    Where other clips were given to measure on, all figures are of those, against the float32 graph's masks.
    """

    largest_difference: float = Field(description="of a logit")
    flipped: float = Field(ge=0, le=1, description="share of pixels on the other side of 0.5")
    miou: float = Field(ge=0, le=1, description="mean over frames of the IoU between the masks")
    min_miou: float = Field(
        validation_alias="least_miou",
        serialization_alias="least_miou",
        ge=0,
        le=1,
        description="the accuracy threshold: what the precision must reach",
    )
    passed: bool
    emulated: bool = Field(
        default=False, description="float32 that rounds as an engine of the precision would, since the CPU has none"
    )
    measured_on: CalibrationRecord | None = Field(
        validation_alias="judged_on",
        serialization_alias="judged_on",
        default=None,
        description="the clips; none: the test vectors",
    )
    vectors_miou: float | None = Field(
        default=None, ge=0, le=1, description="what the test vectors gave where other clips were measured on"
    )


class EngineRecord(Record):
    """An engine: what it was built from, for what, how, and what came out."""

    file: RelativePath
    layers_file: RelativePath = Field(description="JSON: each layer with its realised types")
    graph: str = Field(description="the graph of this bundle that it was built from")
    graph_sha256: Sha256
    parsed_file: RelativePath | None = Field(
        default=None, description="the graph as TensorRT parsed it, without function bodies; none: the graph's own file"
    )
    backend: Literal["tensorrt", "tensorrt-rtx"]
    operator: Literal["plugin", "plain"]
    precision: Precision = Field(description="as requested")
    rest: Precision | None = Field(default=None, description="of what is not quantised, as requested; none: fp32")
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

    @property
    def files(self) -> set[str]:
        """The files of the bundle that belong to the engine."""
        return {self.file, self.layers_file} | ({self.parsed_file} if self.parsed_file else set())

    @model_validator(mode="after")
    def _plugin_where_needed(self) -> EngineRecord:
        if (self.plugin is None) != (self.operator == "plain"):
            raise ValueError("an engine has a plugin record exactly if its operator is the plugin")
        return self
