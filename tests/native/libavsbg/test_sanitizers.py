"""libavsbg under AddressSanitizer, UBSan and ThreadSanitizer, and fuzzed under the first two."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from fixtures import libavsbg

pytestmark = pytest.mark.native

FLAGS = {
    "address": "-fsanitize=address,undefined -fno-sanitize-recover=all -g1",
    "thread": "-fsanitize=thread -g1",
}
# ONNX Runtime keeps what it made once; it is not ours to free.
LEAKS = "leak:libonnxruntime\nleak:<unknown module>\n"


def build(name: str) -> Path:
    """The folder of the programs, all of them with the sanitizer."""
    flags = f"-DCMAKE_CXX_FLAGS={FLAGS[name]}"
    programs = ("avsbg_exercise", "avsbg_fuzz") if name == "address" else ("avsbg_exercise",)
    return (
        libavsbg.build(name, flags, targets=(*libavsbg.TARGETS, *programs)).parent / "runtime" / "native" / "libavsbg"
    )


def run(command: list[str | Path], folder: Path) -> list[str]:
    (folder / "leaks").write_text(LEAKS)
    environment = {
        **os.environ,
        "LSAN_OPTIONS": f"suppressions={folder / 'leaks'}:print_suppressions=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-8000:]}"
    return done.stdout.split()


@pytest.mark.parametrize("name", FLAGS)
def test_threads_that_share_a_model(tiny: Bundle, tiny_stream: Bundle, tmp_path: Path, name: str) -> None:
    folder = build(name)
    program = folder / "avsbg_exercise"
    told = run([program, tiny.path, tiny_stream.path, folder, libavsbg.onnxruntime_library()], tmp_path)
    # Three masks of 16 x 24 with a decision each; a mask of each frame but those that a cut ended or no one waited for.
    assert told == [str(3 * (16 * 24 + 1)), "13", "1", "1"]


def test_hostile_files_are_refused_and_nothing_else(tiny: Bundle, tmp_path: Path) -> None:
    """By mutation of valid and hostile files; AVSBG_FUZZ_SECONDS says for how long."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    manifest = (tiny.path / MANIFEST).read_bytes()
    for number, content in enumerate(
        (manifest, b"{}", b"[" * 2000, manifest.replace(b"5", b"-5", 3), b'{"format": 1}')
    ):
        (corpus / f"manifest{number}").write_bytes(content)
    deflated = (tiny.path / "vectors" / "clips1_seed1.npz").read_bytes()
    with np.load(tiny.path / "vectors" / "clips1_seed1.npz") as archive:
        small = {name: archive[name] for name in ("inputs.frames", "outputs.logits")}
    np.savez(corpus / "npz1.npz", **small)  # type: ignore[arg-type]
    (corpus / "npz2").write_bytes(deflated)
    (corpus / "npz3").write_bytes(deflated[:5000])
    for number, text in enumerate((b"onnxruntime:native:fp16", b"onnxruntime::", b":" * 50, b"tensorrt:plugin")):
        (corpus / f"options{number}").write_bytes(bytes(20) + text)
    seconds = os.environ.get("AVSBG_FUZZ_SECONDS", "4")
    runs, accepted = map(int, run([build("address") / "avsbg_fuzz", corpus, seconds], tmp_path))
    assert runs > 100
    assert accepted >= 3  # the files that are valid, before any is changed
