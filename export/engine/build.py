"""From a bundle to an engine in the bundle: graph in the precision, build, check of what came out, record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from avsbg import __version__
from avsbg.export.engine.api import choose_device, import_tensorrt, validate_builder_options
from avsbg.export.engine.builder import Progress, build_engine
from avsbg.export.engine.commands import command_lines
from avsbg.export.engine.layers import compare_types, count_types, name_sources, realised_types
from avsbg.export.engine.request import BuildError, EngineRequest
from avsbg.export.external_data import check_external_data
from avsbg.export.plugin_graph import count_single_stages, write_plugin_graph
from avsbg.export.precision.accuracy import measure_accuracy
from avsbg.export.precision.graphs import add_graph, expected_types, quantized_graph
from avsbg.native_library import native_library
from avsbg.runtime.backends.tensorrt.engine import PLUGIN_NAMESPACE, PLUGIN_OPERATORS, PLUGIN_VERSION, remember_built
from avsbg.runtime.bundle import Bundle, sha256, update_bundle
from avsbg.runtime.bundle.engine_record import AccuracyRecord, EngineRecord, PluginRecord, RealisedRecord
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.device.gpu import read_cuda_driver
from avsbg.runtime.streaming.frame_pair import check_streams

Report = Callable[[str], None]


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that is now in its bundle: its name there, and its record."""

    name: str
    record: EngineRecord


def build_into_bundle(
    path: Path,
    request: EngineRequest,
    *,
    report: Report,
    progress: Progress,
    plugin: Path | None = None,
    allow_precision_fallback: bool = False,
) -> BuiltEngine:
    """Build an engine from a bundle and add it there, with the graph that it was built from.

    An engine of the same name is replaced. The bundle changes only when everything has succeeded. `plugin` is by
    default the library built with this installation; `allow_precision_fallback` keeps an engine in which products are
    computed in another type than asked for.

    Raises:
        BundleError: the bundle is not valid.
        BuildError: the request cannot be honoured, the build failed, or the engine is not what was asked for.
        BackendError: the backend is not installed.
        NativeLibraryError: the plugin is needed and cannot be used.
        PrecisionError: the graph cannot be expressed in the precision.
    """
    validate_builder_options(request)
    api = import_tensorrt(request.backend)
    device = choose_device(api, request)
    bundle = Bundle.open(path)
    source = _source_graph(bundle, request)
    check_external_data(bundle, bundle.graph(source))
    converted = None
    # With another rest, the graph is made here of what `avsbg quantize` calibrated.
    if PRECISIONS[request.precision].quantization is not None and request.rest is None:
        converted = quantized_graph(bundle, source, request.precision)
        check_external_data(bundle, bundle.graph(converted))
    library = None
    if request.operator == "plugin":
        library = native_library("tensorrt").path if plugin is None else plugin
    name = request.engine_name(device.compute_capabilities)
    with update_bundle(bundle) as update:
        if converted is None:
            report(f"expressing the graph in {request.precision}")
        graph = converted or add_graph(update, source, request.precision, request.rest)
        staged = update.open()
        record = staged.graph(graph)
        accuracy = record.accuracy
        if accuracy is None and (accuracy := _measured_before(bundle, staged, graph)) is not None:
            update.graphs[graph] = record.model_copy(update={"accuracy": accuracy})
        if accuracy is None and request.graph == "clip":
            how = "emulated in" if PRECISIONS[request.precision].emulated else "in"
            report(f"comparing it with PyTorch on the test vectors, {how} ONNX Runtime")
            accuracy = measure_accuracy(staged, graph, precision=request.precision)
        capabilities = ", ".join(f"{number / 10:.1f}" for number in device.compute_capabilities)
        report(f"building with {request.backend} {api.version} for compute capability {capabilities}")
        onnx_file = record.file if library is None else f"{graph}.plugin.onnx"
        sources: dict[str, tuple[str, ...]] = {}
        if library is not None:
            sources = _write_for_plugin(staged.file(record.file), update.directory / onnx_file, report)
        built = build_engine(
            api, update.directory / onnx_file, record, request=request, device=device, plugin=library, progress=progress
        )
        expected = expected_types(bundle, source, request.precision, request.rest)
        layers = name_sources(built.layers, sources)
        differing, unreported = compare_types(layers, expected)
        realised = RealisedRecord(
            source=built.source,
            layers=len(layers),
            products=count_types(realised_types(layers, expected)),
            differing=differing,
            unreported=unreported,
        )
        if realised.differing and not allow_precision_fallback:
            raise BuildError(
                f"{len(realised.differing)} products are not computed in {request.precision}: "
                f"{'; '.join(realised.differing[:3])}{' ...' if len(realised.differing) > 3 else ''}",
                "The engine was not kept. --allow-precision-fallback keeps it, with these layers in its record.",
            )
        file, layers_file = f"engines/{name}.engine", f"engines/{name}.layers.json"
        (update.directory / "engines").mkdir(exist_ok=True)
        (update.directory / file).write_bytes(built.plan)
        described = [asdict(layer) for layer in layers]
        (update.directory / layers_file).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        engine = EngineRecord(
            file=file,
            layers_file=layers_file,
            graph=graph,
            graph_sha256=sha256(staged.file(record.file)),
            parsed_file=None if library is None else onnx_file,
            backend=request.backend,
            operator="plain" if request.operator == "plain" else "plugin",
            precision=request.precision,
            rest=request.rest,
            realised=realised,
            accuracy=accuracy,
            device=device,
            profile=built.profile,
            options=built.options,
            memory=built.memory,
            plugin=None if library is None else _plugin_record(library),
            versions={request.backend: api.version, "avsbg": __version__}
            | ({"cuda_driver": driver} if (driver := read_cuda_driver().version) else {}),
            build_seconds=round(built.seconds, 3),
            commands=command_lines(request, onnx_file, built.profile),
            created=datetime.now(timezone.utc).replace(microsecond=0),
        )
        update.engines[name] = engine
    remember_built(sha256(bundle.path / engine.file))
    return BuiltEngine(name, engine)


def _write_for_plugin(source: Path, target: Path, report: Report) -> dict[str, tuple[str, ...]]:
    """Write the graph that is parsed with the plugin, and report stages that no node of several took."""
    sources = write_plugin_graph(source, target)
    if alone := count_single_stages(target):
        report(f"{alone} stages are a node each: their maps are copied for the plugin, and launched one by one")
    return sources


def _plugin_record(library: Path) -> PluginRecord:
    return PluginRecord(
        sha256=sha256(library), operators=PLUGIN_OPERATORS, version=PLUGIN_VERSION, namespace=PLUGIN_NAMESPACE
    )


def _source_graph(bundle: Bundle, request: EngineRequest) -> str:
    """The float32 graph that the implementation of the operator needs."""
    if request.graph != "clip":
        check_streams(bundle)
    for name in (request.graph, str(GraphName(request.graph, is_plain=True))):
        if name in bundle.manifest.graphs and bundle.graph(name).operator == request.operator.graph_form:
            return name
    if request.operator == "plugin":
        raise BuildError(
            f"the graph {request.graph} of {bundle.manifest.name} contains no operator of ours, so there is nothing "
            "for a plugin to do.",
            "Use --implementation plain.",
        )
    raise BuildError(f"{bundle.path} has no graph of standard operators only.", "Export the bundle again.")


def _measured_before(bundle: Bundle, staged: Bundle, graph: str) -> AccuracyRecord | None:
    """The accuracy that `avsbg quantize` measured of the same graph, on its clips; None where it is another graph."""
    record = bundle.manifest.graphs.get(graph)
    if record is None or record.accuracy is None or record.files != staged.graph(graph).files:
        return None
    same = all(sha256(staged.file(name)) == bundle.manifest.files[name].sha256 for name in record.files)
    return record.accuracy if same else None
