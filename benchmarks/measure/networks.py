"""Every network that was released, measured against AVS-BG in one run: the rows of the table of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.cases import list_cases
from avsbg.benchmarks.measure.flops import count_flops
from avsbg.benchmarks.measure.runner import compare
from avsbg.benchmarks.measure.sampling import Settings
from avsbg.benchmarks.measure.workloads import Workload
from avsbg.benchmarks.results.schema import Measurement, replace_rows
from avsbg.export.network import AudioInput, export_network
from avsbg.model import NETWORKS, Variant, named_variant
from avsbg.progress import Progress
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST

BACKEND = "onnxruntime:native"
SEED = 2  # of the weights, which change masks and not the work


@dataclass(frozen=True)
class System:
    """A network with one of its encoders, under the name of its bundle."""

    name: str
    variant: Variant

    @property
    def audio(self) -> AudioInput:
        """The form of sound that reaches the network itself, so that no front end is timed."""
        return "spectrogram" if NETWORKS[self.variant.network].spectrogram else "embedding"


def list_systems(only: Sequence[str] = ()) -> list[System]:
    """Every released network with each encoder that scores were published with; AVS-BG's default comes first.

    `only` names bundles to which the list is reduced, beside the first; a `BenchmarkError` if there is none of a name.
    """
    systems = []
    for record in NETWORKS.values():
        encoders = record.published_encoders if record.module is not None else ()
        for encoder in encoders:
            name = f"{record.name}-{encoder.replace('_', '-')}" if len(encoders) > 1 else record.name
            systems.append(System(name, named_variant(record.name, encoder=encoder)))
    first = next(system for system in systems if system.variant == named_variant("avs-bg"))
    names = [system.name for system in systems]
    if unknown := [name for name in only if name not in names]:
        raise BenchmarkError(f"there is no network {unknown[0]!r}.", f"Choose from: {', '.join(names)}.")
    rest = [system for system in systems if system != first and (not only or system.name in only)]
    return [first, *rest]


def export_system(system: System, path: Path, progress: Progress, *, frames: int = 5, size: int = 224) -> None:
    """Export a network with random weights to the bundle `path`, unless it is there already.

    Raises as `Bundle.open` and `export_network`; a `BenchmarkError` if the bundle that is there is of something else.
    """
    if not (path / MANIFEST).is_file():
        progress(f"exporting {system.name}", 0, None)
        export_network(
            system.variant.network, path, seed=SEED, encoder=system.variant.encoder,
            audio=system.audio, frames=frames, size=str(size), overwrite=path.exists(),
        )  # fmt: skip
    manifest = Bundle.open(path).manifest
    found = (manifest.variant, manifest.clip.frames, manifest.clip.height, manifest.clip.width)
    if found != (system.variant.to_dict(), frames, size, size):
        message = f"{path} is no bundle of {system.name} for {frames} frames of {size} x {size}."
        raise BenchmarkError(message, "Remove it, or name another folder of bundles.")


def measure_networks(
    bundles: Path,
    settings: Settings,
    progress: Progress,
    *,
    threads: int,
    only: Sequence[str] = (),
    frames: int = 5,
    size: int = 224,
) -> list[Measurement]:
    """Export what is missing of the networks below `bundles`, and measure them all in turn; a row each.

    A row has beside what `compare` measures the operations of the form as published. Raises as `export_system` and
    `compare`.
    """
    systems = list_systems(only)
    for system in systems:
        export_system(system, bundles / system.name, progress, frames=frames, size=size)
    cases = list_cases([bundles / system.name for system in systems], [BACKEND], threads=threads, clips=1)
    counted = [
        count_flops(replace(system.variant, form="published"), frames=frames, height=size, width=size)
        for system in systems
    ]
    rows = compare(cases, Workload(), settings, progress)
    return [
        row.model_copy(update={"metrics": row.metrics | {"published_operations": operations}})
        for row, operations in zip(rows, counted, strict=True)
    ]


def write_latency_rows(path: Path, rows: Sequence[Measurement]) -> None:
    """Write a run in place of the one in the file; rows of engines in it stay."""
    replace_rows(path, rows, lambda row: row.kind == "latency")


def add_engine_rows(path: Path, rows: Sequence[Measurement]) -> None:
    """Write rows of engines into the file, in place of those of the same network and precision."""
    replace_rows(path, rows, lambda row: (row.kind != "latency", row.ran.network, row.case.get("precision")))
