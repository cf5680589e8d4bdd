"""A model repository for Triton's Python backend: its files, and models that are not replaced."""

from __future__ import annotations

from pathlib import Path

from avsbg.runtime.bundle import Bundle
from fixtures.cli import run_avsbg


def test_each_model_holds_its_bundle(tiny_stream: Bundle, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    done = run_avsbg("serve", "triton", tiny_stream.path, "-o", repository, "--threads", "1", "--name", "mine")
    assert done.code == 0, done.output
    assert sorted(path.name for path in repository.iterdir()) == ["mine-clip", "mine-stream"]
    for model, name in (("mine-clip", "ClipModel"), ("mine-stream", "StreamModel")):
        version = repository / model / "1"
        assert f"import {name} as TritonPythonModel" in (version / "model.py").read_text()
        assert Bundle.open(version / "bundle").manifest == tiny_stream.manifest
        assert 'string_value: "onnxruntime"' in (repository / model / "config.pbtxt").read_text()
    assert (repository / "mine-stream/warmup/true").read_bytes() == b"\x01"


def test_a_bundle_without_streams_has_a_model_of_clips(tiny: Bundle, tmp_path: Path) -> None:
    done = run_avsbg("serve", "triton", tiny.path, "-o", tmp_path)
    assert done.code == 0
    assert "no stream model" in done.text
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-clip"]


def test_a_model_that_is_there_stays_without_overwrite(tiny: Bundle, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    assert run_avsbg("serve", "triton", tiny.path, "-o", tmp_path).code == 0
    again = run_avsbg("serve", "triton", tiny.path, "-o", tmp_path)
    assert again.code == 1
    assert "has a model tiny-clip already" in again.paragraph
    assert run_avsbg("serve", "triton", tiny.path, "-o", tmp_path, "--overwrite", "--max-batch", "2").code == 0
    assert "max_batch_size: 2\n" in (tmp_path / "tiny-clip/config.pbtxt").read_text()
    assert (tmp_path / "others").is_dir()


def test_options_that_do_not_fit_are_errors(tiny: Bundle, tmp_path: Path) -> None:
    for options, problem in (
        (["--backend", "pytorch"], "do not include 'pytorch'"),
        (["--precision", "fp16"], "takes python:fp16 by --execute-with"),
        (["--backend", "onnxruntime", "--threads", "2"], "are for the Python backend"),
        (["--backend", "tensorrt", "--implementation", "native"], "no implementation native"),
        (["--execute-with", "a:b"], "names no backend"),
        (["--backend", "onnxruntime:plain:fp16"], "has no graph 'clip.plain.fp16'"),
    ):
        done = run_avsbg("serve", "triton", tiny.path, "-o", tmp_path / "models", *options)
        assert done.code == 1, options
        assert problem in done.paragraph
    assert not (tmp_path / "models").exists()
