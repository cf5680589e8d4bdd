"""Threads that share models of libavsbg, and files and options that are changed at random, under sanitizers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from fixtures import libavsbg

pytestmark = pytest.mark.native


@pytest.mark.parametrize("kind", [*libavsbg.SANITIZERS, "aarch64"])
def test_threads_that_share_a_model(tiny: Bundle, tiny_stream: Bundle, kind: str) -> None:
    """Under sanitizers; and on aarch64, in emulation, where test vectors are replayed too."""
    if kind == "aarch64":
        built = libavsbg.build_for_aarch64("avsbg_exercise")
        folder, library, emulator = built.programs, built.onnxruntime, built.emulator
    else:
        folder, library, emulator = libavsbg.build_sanitized(kind), libavsbg.onnxruntime_library(), ()
    command = (*emulator, folder / "avsbg_exercise", tiny.path, tiny_stream.path, folder, library)
    told = libavsbg.run_sanitized(*command)
    # Three masks of 16 x 24 with a decision each; a stream's twelve masks and one refusal; all threads' are equal.
    # Masks that ONNX Runtime computes lie in the host's memory alone.
    assert told == [str(3 * (16 * 24 + 1)), "13", "1", "1", "none"]


def test_files_and_options_changed_at_random_are_refused_and_nothing_else(tiny: Bundle, tmp_path: Path) -> None:
    """By mutation of valid and hostile files; AVSBG_FUZZ_SECONDS says for how long."""
    manifest = (tiny.path / MANIFEST).read_bytes()
    for number, content in enumerate(
        (manifest, b"{}", b"[" * 2000, manifest.replace(b"5", b"-5", 3), b'{"format": 1}')
    ):
        (tmp_path / f"manifest{number}").write_bytes(content)
    deflated = (tiny.path / "vectors" / "clips1_seed1.npz").read_bytes()
    with np.load(tiny.path / "vectors" / "clips1_seed1.npz") as archive:
        stored = {name: archive[name] for name in ("inputs.frames", "outputs.logits")}
    np.savez(tmp_path / "npz0.npz", **stored)  # type: ignore[arg-type]
    (tmp_path / "npz1").write_bytes(deflated)
    (tmp_path / "npz2").write_bytes(deflated[:5000])
    for number, text in enumerate((b"onnxruntime:native:fp16", b"onnxruntime::", b":" * 50, b"tensorrt:plugin")):
        (tmp_path / f"options{number}").write_bytes(bytes(20) + text)
    seconds = os.environ.get("AVSBG_FUZZ_SECONDS", "3")
    program = libavsbg.build_sanitized("address") / "avsbg_fuzz"
    runs, valid, accepted = map(int, libavsbg.run_sanitized(program, tmp_path, seconds))
    assert valid == 5  # a manifest, two files of test vectors, two names of backends: before any is changed
    assert runs > 50 and accepted < runs
