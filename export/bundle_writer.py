"""Exporting a network to a bundle, which appears only when it has been checked against PyTorch."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import onnxruntime

from avsbg import __version__
from avsbg.export.exporter import Report, export_graphs
from avsbg.export.graphs import ClipGraph, clip_record, preprocessing_record
from avsbg.export.shape import ClipShape, ExportError
from avsbg.export.vectors import reference_run
from avsbg.model import NETWORKS, VARIANTS, Variant, count_parameters
from avsbg.runtime.backends import Backend
from avsbg.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from avsbg.runtime.bundle import Bundle, write_bundle
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.bundle.manifest import Manifest, WeightsRecord
from avsbg.runtime.streaming.frame_pair import StreamedClip
from avsbg.runtime.threads import usable_cores
from avsbg.runtime.verify.verify import TOLERANCE, Comparison, compare

VECTOR_CLIPS = (1, 3)
VECTOR_SEED = 0
_TOOLS = ("numpy", "onnx", "onnx-ir", "onnxscript", "timm", "torch")


def export_bundle(
    graph: ClipGraph,
    path: Path,
    *,
    weights: WeightsRecord,
    shape: ClipShape | None = None,
    stream: bool = False,
    merging: bool = True,
    replace_existing: bool = False,
    report: Report = lambda _: None,
) -> Manifest:
    """Export a network and its front end, as `avsbg.export.weights` makes it, to the bundle `path`.

    The bundle appears only once ONNX Runtime has reproduced PyTorch's outputs from each of its graphs. With `stream`,
    the graphs of a stream are part of it; with `merging`, operations are merged (`avsbg.export.merges`).

    Raises:
        ExportError: a graph is not valid, the network cannot be streamed, or outputs differ from PyTorch's by more
            than 1e-3.
        BundleError: `path` exists.
    """
    shape = shape or ClipShape()
    variant = graph.network.variant
    record = graph.network.record
    clip = clip_record(record, graph.audio, shape)
    count = count_parameters(graph.network)
    with write_bundle(path, replace=replace_existing) as writer:
        graphs = export_graphs(graph, shape, writer.directory, report, stream=stream, merging=merging)
        for clips in VECTOR_CLIPS:
            report(f"running PyTorch on {clips} test clip{'s' if clips > 1 else ''}")
            run = reference_run(graph, clip, clips, VECTOR_SEED)
            writer.add_vectors(clips=clips, seed=VECTOR_SEED, **vars(run))
        manifest = writer.write_manifest(
            name=f"{variant_name(variant)}-{variant.encoder}",
            variant=variant.to_dict(),
            weights=weights,
            clip=clip,
            preprocessing=preprocessing_record(record),
            mixes_frames=record.mixes_frames,
            labels=record.labels if variant.classes > 1 else (),
            graphs=graphs,
            parameters={"published": count.published, "inference": count.inference},
            versions={
                "avsbg": __version__,
                "python": platform.python_version(),
                "onnxruntime": onnxruntime.__version__,  # two packages provide it
                **{tool: version(tool) for tool in _TOOLS},
            },
        )
        _verify(Bundle.open(writer.directory), report)
    return manifest


def variant_name(variant: Variant) -> str:
    """The name of a variant with any encoder and form, or the network's name where the switches have none."""
    plain = replace(variant, encoder=NETWORKS[variant.network].encoders[0], form="efficient")
    classes = f"-{variant.classes}-classes" if variant.classes > 1 else ""
    return next((name for name, named in VARIANTS.items() if named == plain), variant.network + classes)


def _verify(bundle: Bundle, report: Report) -> None:
    # One thread each, as many at a time as there are cores: a session's threads burn a third of their time waiting.
    with ThreadPoolExecutor(len(usable_cores())) as pool:
        forms = dict(_checked_forms(bundle))
        for name, comparisons in zip(forms, pool.map(partial(_compare_form, bundle), forms.values()), strict=True):
            for comparison in comparisons:
                if not comparison.passed:
                    raise ExportError(
                        f"the exported graph {name} differs from PyTorch by {comparison.largest_absolute:.3g} in "
                        f"{comparison.output} with {comparison.clips} clips; at most {TOLERANCE:g} is allowed. The "
                        "bundle was not kept.",
                        "With weights that are not finite or that overflow no export can agree: check the checkpoint.",
                    )
            largest = max(one.largest_absolute for one in comparisons)
            report(f"{name}: ONNX Runtime agrees with PyTorch to {largest:.1e}")


def _compare_form(bundle: Bundle, form: Backend) -> list[Comparison]:
    with form as backend:
        return [one for vectors in bundle.vectors() for one in compare(backend, vectors, TOLERANCE)]


def _checked_forms(bundle: Bundle) -> Iterator[tuple[str, Backend]]:
    """Every graph, in ONNX Runtime: a clip's as it is, a stream's two together, frame by frame over the clips."""
    for name in bundle.manifest.graphs:
        role = GraphName.parse(name).role
        if role == "decode":
            encode, decode = (
                OnnxRuntimeBackend(bundle, "encode", threads=1),
                OnnxRuntimeBackend(bundle, name, threads=1),
            )
            yield f"encode and {name}", StreamedClip(encode, decode)
        elif role != "encode":
            yield name, OnnxRuntimeBackend(bundle, name, threads=1)
