"""scripts/on-gpu.sh: what needs no GPU runs, and stages that do are held to tools that are played."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from avsbg.benchmarks.report.content import gather
from avsbg.benchmarks.report.page import write_report
from avsbg.benchmarks.results.schema import write_rows
from avsbg.runtime.device.gpu import read_cuda_driver
from fixtures import ROOT
from fixtures.gpu_results import MACHINE
from fixtures.rows import make_row, make_second_row
from tools.gpu_rows import gpu_rows

pytestmark = [pytest.mark.native]
SCRIPT = ROOT / "scripts" / "on-gpu.sh"


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_what_needs_no_gpu_runs_here(tmp_path: Path) -> None:
    """Everything is compiled, the kernels' tests pass on the emulated CUDA, and what measures writes its rows."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc not found: install the CUDA toolkit, or `make cuda`, and test by `make`")
    done = run("--here", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    stages = {stage["stage"]: stage["result"] for stage in results["stages"]}
    without = dict.fromkeys(("plugin", "ptx", "sanitizers", "ncu", "torch"), "skipped")
    assert stages == {**dict.fromkeys(("machine", "build", "kernels", "operator", "table7"), "passed"), **without}
    assert results["machine"]["packages"]["torch"]
    tests = results["tests"]["kernels"]
    assert tests["tests"] > 90 and tests["failures"] == tests["errors"] == 0
    assert {row["way"] for row in results["operator"]} == {
        *("materialised", "tiles in L2", "composite", "materialised, in turn")
    }
    assert all(row["is_right"] for row in results["operator"])
    assert [row["operator"] for row in results["table7"]] == ["published", "composite"]
    assert all(row["eager_ms"]["p50"] > 0 for row in results["table7"])
    rows = gpu_rows(results)
    assert {row.kind for row in rows} == {"gpu-stage", "gpu-operator", "latency"}
    assert next(row["ratio"].value for row in rows if row.kind == "latency") == 1
    write_rows(tmp_path / "rows.jsonl", rows)
    write_report(gather([tmp_path / "rows.jsonl"]), tmp_path / "report")
    report = (tmp_path / "report" / "report.md").read_text()
    assert "| tiles in L2 | fp32 | 2 | 14 x 14 |" in report and "| table7 | passed |" in report
    assert "AVS-BG, PVT-v2-b0<br>PyTorch eager, as published, fp32" in report
    page = (tmp_path / "results.md").read_text()
    assert "| 2 | 14 x 14 | tiles in L2 | fp32 |" in page
    assert "* ncu: skipped needs a GPU" in page
    # The fault of racecheck is a copy of the kernels without one barrier.
    kernels = ROOT / "runtime" / "native" / "cuda" / "correlation.cuh"
    sound, faulty = (path.read_text() for path in (kernels, tmp_path / "racecheck" / "correlation.cuh"))
    assert sound.count("__syncthreads();") == faulty.count("__syncthreads();") + 1


def play(folder: Path, name: str, text: str) -> dict[str, str]:
    """Put a program of that name on the PATH; returns the environment."""
    program = folder / name
    program.write_text(f"#!/usr/bin/env bash\n{text}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("tool", "code", "words"),
    [
        ('case $3 in *driver-*) n=2 ;; *) n=0 ;; esac; echo "========= ERROR SUMMARY: $n errors"', 0, "planted"),
        ("echo '========= ERROR SUMMARY: 0 errors'", 1, "memcheck does not find the fault that was planted for it"),
        ("echo '========= ERROR SUMMARY: 1 error'", 1, "memcheck, mean 2 1 150 135 128 1 1:"),
        ("echo 'Device not supported'", 77, "SKIPPED: compute-sanitizer cannot look at this device"),
    ],
    ids=["sound", "blind", "faulty", "unable"],
)
def test_the_sanitizers_must_find_what_was_planted_and_nothing_else(
    tmp_path: Path, tool: str, code: int, words: str
) -> None:
    done = run("--stage", "sanitizers", tmp_path / "out", **play(tmp_path, "compute-sanitizer", tool))
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout


def test_counters_become_rows(tmp_path: Path) -> None:
    header = '"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
    rows = '"0","correlate","gpu__time_duration.sum","ns","21,000"'
    environment = play(tmp_path, "ncu", f"echo '==PROF=='; echo '{header}'; echo '{rows}'")
    out = tmp_path / "out"
    assert run("--stage", "ncu", out, **environment).returncode == 0
    subprocess.run([sys.executable, ROOT / "scripts/gpu/collect.py", out, "-o", out / "results.json"], check=True)
    counters = json.loads((out / "results.json").read_text())["counters"]
    assert len(counters) == 6
    assert counters[0]["problem"].startswith("group 2 0 1 4 3136 3136 128 4 ")
    subprocess.run([sys.executable, ROOT / "scripts/gpu/tables.py", out / "results.json"], check=True)
    page = (out / "results.md").read_text()
    assert "| mean 2 4 3136 3136 128 0 1 | correlate | gpu__time_duration.sum | 21,000 | ns |" in page
    assert counters[1] == {
        "problem": "mean 2 4 3136 3136 128 0 1",
        "kernel": "correlate",
        "metric": "gpu__time_duration.sum",
        "unit": "ns",
        "value": "21,000",
    }


TEGRASTATS = (
    "11-29-2026 10:00:00 RAM 9999/62841MB (lfb 4x4MB) SWAP 0/31420MB (cached 0MB) CPU [3%@1190,0%@1190] "
    "GR3D_FREQ 97%@[1300,1300] cpu@48.5C gpu@44C VDD_GPU_SOC 9600mW/5000mW VDD_CPU_CV 800mW/790mW"
)


def test_what_a_jetson_finds_is_in_the_results(tmp_path: Path) -> None:
    """Its engines' rows, their masks, its power by mode, the tests of each stage; and all of them in the report."""
    (tmp_path / "engines-2").mkdir()
    write_rows(tmp_path / "engines-2" / "rows.jsonl", [make_row(), make_second_row()])
    (tmp_path / "tegrastats-2.txt").write_text(f"{TEGRASTATS}\n{TEGRASTATS.replace('9600mW', '10200mW')}\n")
    (tmp_path / "tegrastats-set.txt").write_text("RAM 1/2MB GR3D_FREQ 0%@306\n")
    case = {"precision": "int8", "least_miou": 0.9, "miou": 0.95, "flipped": 0.002, "passed": True, "backend": {}}
    (tmp_path / "verify.json").write_text(json.dumps({"results": [{"target": "tensorrt:int8", **case}]}))
    for stage, failures in (("kernels", 0), ("ptx", 2)):
        counts = f'tests="9" failures="{failures}" errors="1" skipped="3"'
        (tmp_path / f"{stage}.xml").write_text(f"<testsuites><testsuite {counts}/></testsuites>")
        told = {"stage": stage, "result": "passed", "started": "2026-11-29T10:00:00+00:00", "seconds": 7, "reason": ""}
        (tmp_path / f"{stage}.stage.json").write_text(json.dumps(told))
    (tmp_path / "machine.json").write_text(json.dumps(MACHINE))
    collect = [sys.executable, ROOT / "scripts/gpu/collect.py", tmp_path, "-o", tmp_path / "results.json"]
    subprocess.run(collect, check=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["power"]["2"]["milliwatts"]["VDD_GPU_SOC"] == [9600, 10200]
    assert (results["power"]["2"]["gpu_mhz"], results["power"]["set"]["gpu_mhz"]) == ([1300, 1300], [306])
    rows = gpu_rows(results)
    assert [row for row in rows if row.kind == "latency"] == [make_row(), make_second_row()]
    power = {row.label: row for row in rows if row.kind == "gpu-power"}
    assert power["2:VDD_GPU_SOC"]["power"].samples == (9.6, 10.2)
    assert power["set"].problems == ("tegrastats named no power rail",)
    write_rows(tmp_path / "rows.jsonl", rows)
    write_report(gather([tmp_path / "rows.jsonl"]), tmp_path / "report")
    report = (tmp_path / "report" / "report.md").read_text()
    assert "| 2 | VDD_GPU_SOC | 9.9 | 2 |" in report and "| tensorrt:int8 | int8 | 0.9500 | 0.200% |" in report
    assert "| ptx | passed | 7 | 6 | 3 |" in report and "0.500 [0.500, 0.500]" in report


def test_engines_are_measured_in_each_power_mode_that_is_asked_for(tmp_path: Path) -> None:
    """On a Jetson that is played: which commands are given, in which order, and that the mode is set back."""
    said = tmp_path / "said"
    play(tmp_path, "python", f'shift 2; echo "$*" >>{said}')
    play(tmp_path, "tegrastats", "exec sleep 30")
    play(tmp_path, "jetson_clocks", f"echo jetson_clocks >>{said}")
    path = play(tmp_path, "nvpmodel", f'[[ $1 == -q ]] && echo MAXN && echo 0 && exit; echo "nvpmodel $*" >>{said}')
    settings = {**path, "PYTHON": str(tmp_path / "python"), "AVSBG_POWER_MODES": "0 2"}
    done = run("--stage", "engines", tmp_path / "out", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in said.read_text().splitlines() if line]
    verbs = [" ".join(words[:3] if words[0] == "nvpmodel" else words[:1]) for words in lines]
    each = ["jetson_clocks", "bench"]
    assert verbs == [
        *("export", "quantize", "build", "build", "verify"),
        *("nvpmodel -m 0", *each, "nvpmodel -m 2", *each, "nvpmodel -m 0"),
    ]
    measured = [words for words in lines if words[0] == "bench"]
    assert [words[words.index("-o") + 1].rpartition("/")[2] for words in measured] == ["engines-0", "engines-2"]
    assert all("--backend=tensorrt:rest-fp16:int8" in words for words in measured)


def test_the_recorded_command_of_trtexec_is_given_as_it_stands(tmp_path: Path) -> None:
    """In the bundle, with the plugin that was built; an engine that is plain is passed over."""
    out, said = tmp_path / "out", tmp_path / "said"
    plugin = out / "build/runtime/native/tensorrt/libavsbg_tensorrt.so"
    plugin.parent.mkdir(parents=True)
    plugin.touch()
    (out / "bundle").mkdir()
    plain = "trtexec --onnx=clip.plain.onnx --saveEngine=clip.plain.engine --stronglyTyped"
    command = "trtexec --onnx='clip a.onnx' --saveEngine=clip.engine --stronglyTyped --dynamicPlugins=/path/to/lib.so"
    engines = {"plain": {"commands": {"trtexec": plain}}, "clip": {"commands": {"trtexec": command}}}
    (out / "bundle" / "manifest.json").write_text(json.dumps({"engines": engines}))
    path = play(tmp_path, "trtexec", f'printf "%s\\n" "$PWD" "$@" >{said}; exit 7')
    done = run("--stage", "trtexec", out, **path)
    assert done.returncode == 7, done.stdout + done.stderr
    assert said.read_text().splitlines() == [
        *(str(out / "bundle"), "--onnx=clip a.onnx", f"--saveEngine={out}/trtexec.engine", "--stronglyTyped"),
        f"--dynamicPlugins={plugin}",
    ]
    (out / "bundle" / "manifest.json").write_text(json.dumps({"engines": {"plain": engines["plain"]}}))
    done = run("--stage", "trtexec", out, **path)
    reason = "records no command of trtexec with the plugin; its engines: plain"
    assert (done.returncode, reason in done.stderr) == (1, True)


def test_tests_that_lack_a_package_are_skipped_and_tests_that_all_skip_fail(tmp_path: Path) -> None:
    """Without a GPU every test of the backends is skipped, which proves nothing."""
    play(tmp_path, "python", f'[[ $1 == -c ]] && echo timm && exit; exec {sys.executable} "$@"')
    done = run("--stage", "torch", tmp_path / "out", PYTHON=str(tmp_path / "python"))
    assert (done.returncode, "SKIPPED: cannot be imported: timm" in done.stdout) == (77, True)
    if read_cuda_driver().problem is not None:
        done = run("--stage", "torch", tmp_path / "out")
        assert (done.returncode, "no test ran: each was skipped" in done.stderr) == (1, True)


def test_a_stage_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    play(
        tmp_path,
        "python",
        f'case "$*" in *collect* | *tables*) exec {sys.executable} "$@" ;; esac; echo broken; exit 3',
    )
    before = datetime.now(timezone.utc).replace(microsecond=0)
    done = run("--here", "--only", "machine", "--only", "operator", tmp_path / "out", PYTHON=str(tmp_path / "python"))
    assert done.returncode == 1
    assert "failed: machine operator" in done.stderr
    assert done.stdout.count("broken") == 2
    stages = json.loads((tmp_path / "out" / "results.json").read_text())["stages"]
    assert [stage["result"] for stage in stages] == ["failed", "failed"]
    started = [datetime.fromisoformat(stage["started"]) for stage in stages]
    assert before <= started[0] <= started[1] <= datetime.now(timezone.utc)


def test_an_unknown_stage_and_a_missing_gpu_are_refused(tmp_path: Path) -> None:
    unknown = run("--only", "everything", tmp_path / "out")
    assert (unknown.returncode, "no stage is named everything" in unknown.stderr) == (2, True)
    blind = run(tmp_path / "out", PYTHON="false")
    assert (blind.returncode, "no NVIDIA GPU answers here" in blind.stderr) == (1, True)
