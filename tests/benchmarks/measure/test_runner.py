"""Comparisons of the tiny network: who takes part, what is computed, and which rows are marked unstable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.cases import BenchmarkCase, list_cases
from avsbg.benchmarks.measure.runner import compare
from avsbg.benchmarks.measure.sampling import Settings, logit_difference
from avsbg.benchmarks.measure.workloads import Workload, masks_of_video
from avsbg.benchmarks.results.schema import Measurement, read_rows, write_rows
from avsbg.progress import Progress
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.errors import BackendError, BundleError, MediaError
from fixtures import tiny_bundle
from fixtures.engines import add_engine
from fixtures.fake_backends import ScheduledBackend

Schedule = Callable[[Callable[[int], float]], None]

QUICK = Settings(warmup=1, samples=3, seconds=0.0, memory=False)


def _scheduled(bundle: Bundle, progress: Progress, samples: int = 20) -> Measurement:
    # Without test vectors, the first call is the warm-up's.
    settings = Settings(warmup=1, samples=samples, seconds=0.0, memory=False)
    (row,) = compare([BenchmarkCase("slow", bundle, "scheduled", {})], Workload(), settings, progress)
    return row


def test_every_bundle_meets_every_backend_in_each_form(embedding: Bundle, tiny: Bundle) -> None:
    found = list_cases(
        [embedding.path, tiny.path],
        ["onnxruntime:function", "onnxruntime:plain", "torch:efficient", "torch:published"],
        threads=2,
        clips=1,
    )
    assert [case.label for case in found] == [
        f"tiny@{directory}:{way}"
        for directory in ("embedding", "tiny")
        for way in ("onnxruntime:function", "onnxruntime:plain", "torch:efficient", "torch:published")
    ]
    assert found[1].options == {"threads": 2, "clips": 1, "operator": "plain", "allow_failed_accuracy": True}
    assert found[3].options == {"threads": 2, "operator": "published"}


def test_two_targets_that_are_one_for_a_bundle_are_measured_once(tiny: Bundle, tmp_path: Path) -> None:
    """Whichever is named first; a bundle without the operator has one implementation."""
    alone = tiny_bundle.make_bundle(tmp_path / "alone", vectors=False)
    document = json.loads((alone.path / MANIFEST).read_text())
    document["name"] = "alone"
    document["graphs"]["clip"] = document["graphs"].pop("clip.plain")
    (alone.path / MANIFEST).write_text(json.dumps(document))
    for targets in (["onnxruntime:function", "onnxruntime:plain"], ["onnxruntime:plain", "onnxruntime:function"]):
        told: list[str] = []
        found = list_cases([tiny.path, alone.path], targets, threads=1, clips=1, report=told.append)
        assert [case.label for case in found] == [*(f"tiny:{one}" for one in targets), "alone:onnxruntime:plain"]
        both = " and ".join(targets)
        assert told == [f"alone:onnxruntime:plain is measured once: {both} are the same for this bundle"]
    told = []
    (one,) = list_cases([tiny.path], ["onnxruntime", "onnxruntime:function"], threads=1, clips=1, report=told.append)
    assert one.label == "tiny:onnxruntime:function" and len(told) == 1


def test_rows_of_tensorrt_can_be_written_and_read(
    machine: None, bundle_copy: Path, video: Path, progress: Progress, tmp_path: Path
) -> None:
    bundle = add_engine(bundle_copy, "clip.fp16")
    cases = list_cases([bundle.path], ["tensorrt", "onnxruntime:plain"], threads=1, clips=1, trust=True)
    rows = compare(cases, Workload(scope="end-to-end", video=video), QUICK, progress)
    write_rows(tmp_path / "rows.jsonl", rows)
    row, _ = read_rows(tmp_path / "rows.jsonl")
    assert row.label == "tiny:tensorrt" and row.ran.backend["cuda_graph"].keys() >= {"captured", "launched"}
    engine = bundle.manifest.engines["clip.fp16"].file
    assert row.ran.files[engine] == bundle.manifest.files[engine].sha256
    assert row["miou"].value == 1.0


def test_a_row_that_cannot_be_written_is_found_before_anything_is_timed(
    embedding: Bundle, progress: Progress, scheduled: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []
    scheduled(lambda call: timed.append(call) or 1.0)  # type: ignore[func-returns-value]
    monkeypatch.setattr(ScheduledBackend, "describe", lambda _: {"realised": ["fp16"]})
    with pytest.raises(BenchmarkError, match=r"a row of slow could not be written(.|\n)*realised"):
        _scheduled(embedding, progress)
    monkeypatch.setattr(ScheduledBackend, "describe", lambda _: {"device": object()})
    with pytest.raises(BenchmarkError, match=r"a row of slow could not be written"):
        _scheduled(embedding, progress)
    assert len(timed) <= 2  # by the comparison with the vectors


@pytest.mark.parametrize(
    ("paths", "targets", "message"),
    [
        (["missing"], ["onnxruntime"], "no bundle at missing"),
        ([], ["imaginary"], "unknown backend 'imaginary'. Choose one of: onnxruntime"),
        ([], ["onnxruntime::"], "'onnxruntime::' names no backend"),
        (["tiny"], ["onnxruntime:plain", "onnxruntime:plain"], "tiny:onnxruntime:plain takes part twice"),
    ],
)
def test_cases_that_cannot_be(embedding: Bundle, paths: list[str], targets: list[str], message: str) -> None:
    located = [embedding.path if path == "tiny" else Path(path) for path in paths]
    with pytest.raises((BackendError, BenchmarkError, BundleError), match=message):
        list_cases(located, targets, threads=1, clips=1)


def test_rows_of_a_run(embedding: Bundle, progress: Progress) -> None:
    chosen = list_cases([embedding.path], ["onnxruntime:plain", "onnxruntime:function"], threads=1, clips=2)
    plain, function = compare(chosen, Workload(clips=2), QUICK, progress)
    assert plain.label == "tiny:onnxruntime:plain" and function.ran.backend["operator"] == "function"
    assert plain.ran.backend["clips"] == 2 and plain.ran.backend["threads"] == 1
    assert plain.ran.files == {
        name: sha256(embedding.path / name) for name in ("manifest.json", "clip.onnx", "clip.plain.onnx")
    }
    assert (plain.case["clips"], plain.case["frames"], plain.case["audio"]) == (2, 5, "audio_embedding")
    assert (plain["published_parameters"].value, plain["needed_parameters"].value) == (2, 1)
    assert "operations" not in plain.metrics  # the record names no network that could be counted
    assert len(plain["latency"].samples) == len(function["latency"].samples) == 3
    assert (plain.run.settings["reference"], plain["ratio"].value) == (plain.label, 1.0)
    pairs = np.divide(function["latency"].samples, plain["latency"].samples)
    assert function["ratio"].value == pytest.approx(np.median(pairs))
    assert "3 samples; at least 10 are needed" in plain.problems[0] and not plain.is_stable
    assert plain.run == function.run


def test_ratios_refer_to_the_row_that_is_named(embedding: Bundle, progress: Progress, scheduled: Schedule) -> None:
    scheduled(lambda call: 1.0 + 0.05 * (call % 2))
    chosen = [BenchmarkCase(label, embedding, "scheduled", {}) for label in ("first", "second")]
    settings = Settings(warmup=1, samples=20, seconds=0.0, reference="second", memory=False)
    first, second = compare(chosen, Workload(), settings, progress)
    assert first.run.settings["reference"] == second.label and first["ratio"].value == pytest.approx(1.0)
    assert first.is_stable and second.is_stable
    # Call 0 was the warm-up's.
    assert first["latency"].samples == pytest.approx([1.05, 1.0] * 10)


@pytest.mark.slow
def test_a_disturbance_marks_the_row(embedding: Bundle, progress: Progress, scheduled: Schedule) -> None:
    scheduled(lambda _: 1.0)
    assert _scheduled(embedding, progress).problems == ()
    scheduled(lambda call: 3.0 if call % 7 == 0 else 1.0)
    (spikes,) = _scheduled(embedding, progress).problems
    assert "coefficient of variation" in spikes
    scheduled(lambda call: 1.0 + 0.005 * call)
    (slower,) = _scheduled(embedding, progress).problems
    assert "the last quarter is +7." in slower
    scheduled(lambda _: 1.0)
    (short,) = _scheduled(embedding, progress, samples=5).problems
    assert "5 samples" in short


def test_a_network_that_computes_something_else_is_no_result(
    tiny: Bundle, progress: Progress, scheduled: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduled(lambda _: 1.0)
    with BenchmarkCase("zeros", tiny, "scheduled", {}).create() as backend:
        expected = max(np.abs(v.outputs["logits"]).max() for v in tiny.vectors() if v.record.clips == 3)
        assert logit_difference(backend, 3) == pytest.approx(expected)
        assert logit_difference(backend, 2) is None
    with BenchmarkCase("right", tiny, "onnxruntime", {"operator": "function"}).create() as backend:
        difference = logit_difference(backend, 3)
        assert difference is not None and difference < 1e-4


def test_logits_that_are_not_numbers_stop_the_run(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with BenchmarkCase("nan", tiny, "onnxruntime", {}).create() as backend:
        right = backend.run
        monkeypatch.setattr(backend, "run", lambda *a: {name: value * np.nan for name, value in right(*a).items()})
        with pytest.raises(BenchmarkError, match="do not both return numbers"):
            logit_difference(backend, 1)


def test_end_to_end_makes_the_masks_of_a_video(tiny: Bundle, video: Path, progress: Progress) -> None:
    case = BenchmarkCase("tiny", tiny, "onnxruntime", {})
    (row,) = compare([case], Workload("end-to-end", video=video), QUICK, progress)
    assert row.case["clips"] == 2 and row.case["video_sha256"] == sha256(video)
    assert row["logit_difference"].number < 1e-4
    with case.create() as backend:
        masks = masks_of_video(backend, video)
    assert [mask.shape for mask in masks] == [(seconds, tiny_bundle.HEIGHT, tiny_bundle.WIDTH) for seconds in (5, 2)]
    # The video brightens frame by frame under an even tone: dark seconds are silent to the network, bright ones not.
    assert not masks[0][0].any() and masks[1][-1].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 0}, "at least 1, not 0"),
        ({"scope": "end-to-end"}, "decodes a video, and none is given. Give one with --video"),
        ({"video": Path("a.mp4")}, "the scope model decodes no video"),
        ({"scope": "end-to-end", "video": Path("a.mp4"), "clips": 2}, "takes its clips one by one"),
    ],
)
def test_workloads_that_contradict_themselves(options: dict[str, object], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        Workload(**options)


def test_a_bundle_must_fit_the_scope(embedding: Bundle, tiny: Bundle, video: Path, progress: Progress) -> None:
    for bundle, workload, message in (
        (tiny, Workload(), "takes waveform. Export it with --audio embedding"),
        (embedding, Workload("end-to-end", video=video), "takes audio embeddings. Export it with --audio waveform"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            compare([BenchmarkCase("tiny", bundle, "onnxruntime", {})], workload, QUICK, progress)


def test_a_video_that_is_not_there_is_refused_before_anything_is_measured(
    tiny: Bundle, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avsbg.benchmarks.measure.runner.sample", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(MediaError, match=r"no video at missing\.mp4"):
        compare(
            [BenchmarkCase("tiny", tiny, "onnxruntime", {})],
            Workload("end-to-end", video=Path("missing.mp4")),
            QUICK,
            progress,
        )


def test_settings_and_references_that_cannot_be(embedding: Bundle, progress: Progress) -> None:
    with pytest.raises(BenchmarkError, match="cannot take 1 samples"):
        Settings(samples=1)
    tiny = BenchmarkCase("tiny", embedding, "onnxruntime", {})
    with pytest.raises(BenchmarkError, match=r"no case 'other' to refer to\. There are: tiny"):
        compare([tiny], Workload(), Settings(reference="other"), progress)
    with pytest.raises(BenchmarkError, match="nothing to compare"):
        compare([], Workload(), QUICK, progress)
