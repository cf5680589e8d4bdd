"""Engines of bundles as rows: what their builder said of memory, layers and size. Nothing is measured on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.results.schema import Environment, Measurement, Metric, Ran
from avsbg.progress import Progress
from avsbg.runtime.backends import OperatorImplementation
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST

_SHOWN = (
    *("graph", "precision", "rest", "operator", "backend", "profile", "options", "device", "accuracy", "created"),
)


def engine_rows(bundle: Bundle, environment: Environment, names: Sequence[str] | None = None) -> list[Measurement]:
    """One row for each engine of a bundle, or for those of `names`."""
    manifest, rows = bundle.manifest, []
    for name, record in manifest.engines.items():
        if names is not None and name not in names:
            continue
        engine, facts = manifest.files[record.file], record.model_dump(mode="json")
        realised, plugin = facts["realised"], facts["plugin"]
        case = {
            "engine": name,
            "clips": record.profile["frames"].largest[0],
            "clip": manifest.clip.model_dump(mode="json"),
        }
        metrics = {
            "engine_bytes": Metric(unit="B", value=engine.bytes),
            "layers": Metric(value=realised["layers"]),
            "products": Metric(parts=realised["products"]),
            "build": Metric(unit="s", value=record.build_seconds),
        }
        sizes = {f"{kind}_memory": size for kind, size in facts["memory"].items() if size is not None}
        hashes = {MANIFEST: bundle.manifest_sha256, record.graph: record.graph_sha256, name: engine.sha256}
        ran = Ran(
            network=manifest.name,
            variant=manifest.variant,
            files=hashes | ({"plugin": plugin["sha256"]} if plugin else {}),
            backend=facts["versions"],
            requested=facts["precision"],
            realised=realised,
        )
        rows.append(
            Measurement(
                kind="engine",
                label=name,
                case=case | {key: facts[key] for key in _SHOWN if facts[key] is not None},
                metrics=metrics | {kind: Metric(unit="B", value=size) for kind, size in sizes.items()},
                ran=ran,
                environment=environment,
            )
        )
    return rows


def build_engines(
    paths: Sequence[Path], precision: str, compute_capability: int, progress: Progress
) -> list[Measurement]:
    """Build an engine of one clip from each bundle with TensorRT for RTX, which needs no GPU, and return their rows.

    Standard operators only, so that all networks are built alike. A build that fails is a row that has the reason among
    its problems. A `BackendError` if TensorRT for RTX is not installed.
    """
    from avsbg.export.engine.build import build_into_bundle
    from avsbg.export.engine.request import BuildError, EngineRequest

    environment, rows = describe_environment(), []
    request = EngineRequest(
        backend="tensorrt-rtx",
        precision=precision,
        operator=OperatorImplementation.PLAIN,
        clips=(1, 1, 1),
        compute_capabilities=(compute_capability,),
    )
    for number, path in enumerate(paths):
        progress(f"building {path.name} in {precision}", number, len(paths))
        bundle = Bundle.open(path)
        try:
            name = build_into_bundle(path, request, report=lambda _: None, progress=lambda *_: None).name
        except BuildError as error:
            asked = {"engine": "", "graph": "clip.plain", "clips": 1, "precision": precision, "operator": "plain"}
            rows.append(
                Measurement(
                    kind="engine-failure",
                    case=asked,
                    metrics={},
                    problems=(error.message,),
                    ran=Ran(network=bundle.manifest.name, variant=bundle.manifest.variant, requested=precision),
                    environment=environment,
                )
            )
            continue
        rows += engine_rows(Bundle.open(path), environment, [name])
    progress("building engines", len(paths), len(paths))
    return rows
