"""`avsbg bench` on a tiny bundle: what it prints, writes, refuses and exits with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from avsbg.benchmarks.machine.environment import OtherLoad
from avsbg.benchmarks.results.schema import read_rows
from avsbg.errors import AvsbgError
from avsbg.runtime.bundle import Bundle
from fixtures.cli import AVSBG, run_avsbg

QUICK = ["--samples", "3", "--min-time", "0", "--warmup", "1", "--threads", "1"]


def _bench(*arguments: object) -> tuple[int, str]:
    result = run_avsbg("bench", *arguments)
    if result.error is not None:
        raise result.error
    return result.code, result.output


@pytest.mark.slow
def test_compares_writes_and_says_that_three_samples_are_no_result(embedding: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    targets = ["--backend", "onnxruntime:plain", "--backend", "onnxruntime:function"]
    code, text = _bench(embedding.path, *targets, *QUICK, "-o", out)
    assert code == 3
    assert "2 of 2 rows unstable" in text and "3 samples; at least 10 are needed" in " ".join(text.split())
    assert sorted(path.name for path in out.iterdir()) == ["latency.png", "latency.svg", "rows.jsonl"]
    plain, function = read_rows(out / "rows.jsonl")
    assert (plain.label, function.label) == ("tiny:onnxruntime:plain", "tiny:onnxruntime:function")
    assert plain["peak_memory"].number > plain["imported_memory"].number > 0
    assert plain.run.command[0] == "avsbg"


@pytest.mark.slow
def test_unstable_rows_can_be_allowed_and_memory_left_out(embedding: Bundle, tmp_path: Path) -> None:
    code, _ = _bench(embedding.path, *QUICK, "--no-memory", "--allow-unstable", "-o", tmp_path / "out")
    assert code == 0
    (row,) = read_rows(tmp_path / "out" / "rows.jsonl")
    assert "peak_memory" not in row.metrics and not row.is_stable


@pytest.mark.slow
def test_a_busy_machine_is_no_place_to_measure(
    embedding: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OtherLoad, "share", lambda _: 0.5)
    code, text = _bench(embedding.path, *QUICK, "--samples", 12, "--no-memory", "-o", tmp_path / "out")
    assert code == 3 and "other processes used 50.0% of the processor" in " ".join(text.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "imaginary"], "unknown backend 'imaginary'"),
        (["--scope", "end-to-end"], "none is given. Give one with --video"),
        (
            ["--scope", "end-to-end", "--video", "missing.mp4"],
            "takes audio embeddings. Export it with --audio waveform",
        ),
        (["--video", "missing.mp4"], "the scope model decodes no video"),
        (["--backend", "onnxruntime:int4:native"], "names no backend; a backend is named BACKEND"),
        (["--backend", "torch"], "the backend torch cannot run this"),
        (["--reference", "other"], "no case 'other'"),
        (["--batch", "0"], "the number of clips must be at least 1, not 0"),
        (["--samples", "1"], "cannot take 1 samples"),
        (["--min-time", "nan"], "the least time is nan"),
        (["--extra-rounds", "-1"], "the number of extra rounds is -1"),
    ],
)
def test_refuses_and_leaves_nothing(embedding: Bundle, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(AvsbgError) as raised:
        _bench(embedding.path, *QUICK, "--no-memory", "-o", tmp_path / "out", *options)
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_existing_directory_is_refused_before_anything_is_measured(embedding: Bundle, tmp_path: Path) -> None:
    with pytest.raises(AvsbgError, match="exists already"):
        _bench(embedding.path, *QUICK, "-o", tmp_path)


def test_a_mistake_is_one_paragraph(tmp_path: Path) -> None:
    command = [*AVSBG, "bench", "missing"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and not result.stdout and "Traceback" not in result.stderr
    assert result.stderr.startswith("error: there is no bundle at missing. Make one with `avsbg export`.")
    assert not list(tmp_path.iterdir())


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom avsbg.cli import app, load_verbs\nload_verbs()\n"
        "try:\n    app(['bench', 'run', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'torch', 'scipy', 'matplotlib', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--backend" in result.stdout and "exit code is 3" in result.stdout
