"""A real Triton Inference Server: clips in batches and streams side by side, and a server that fails."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.streaming.frame_pair import frame_inputs
from fixtures import ROOT
from fixtures.cli import run_avsbg
from fixtures.environments import Server, run_avsbg_there, run_there, tritonserver
from fixtures.videos import steady, tone, write_video

pytestmark = pytest.mark.slow
FIXTURES = ROOT / "tests/fixtures"
STREAMS = 8
ATOL = 2e-5  # of probabilities: the order of float32 sums


@pytest.fixture(scope="module")
def served(export_once, tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of AVS-BG (clips and streams) and of the tiny bundle (clips)."""
    folder = tmp_path_factory.mktemp("served")
    bundle = export_once("avs-bg, waveform").bundle
    common = ["-o", folder / "models", "--threads", "1", "--delay", "0.05"]
    for path, name in ((bundle.path, "avs-bg"), (tiny.path, "tiny")):
        done = run_avsbg("serve", "triton", path, "--name", name, "--max-batch", "2", *common)
        assert done.code == 0, done.output
    with tritonserver(folder / "models", folder / "log") as server:
        yield server


@pytest.fixture
def bundle(export_once) -> Bundle:
    return export_once("avs-bg, waveform").bundle


def verify(path: Path, spec: str, report: Path) -> dict:
    done = run_avsbg_there("triton", "verify", path, "--backend", spec, "--json", report)
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads(report.read_text())["results"]
    return result


@pytest.mark.parametrize("model", ["avs-bg-clip", "avs-bg-stream"])
def test_a_served_bundle_is_verified_over_the_wire(served: Server, bundle: Bundle, tmp_path: Path, model: str) -> None:
    result = verify(bundle.path, served.spec(model), tmp_path / "report.json")
    # Three clips are more than the model takes at a time.
    assert [(one["clips"], one["output"]) for one in result["comparisons"]] == [
        (clips, output) for clips in (1, 3) for output in ("logits", "probability")
    ]
    assert (result["backend"]["model"], result["backend"]["executes"]["backend"]) == (model, "onnxruntime")


def test_eight_streams_at_once_have_the_masks_of_clips(served: Server, bundle: Bundle, tmp_path: Path) -> None:
    vectors = next(one for one in bundle.vectors() if one.record.clips == 3)
    frames = bundle.manifest.clip.frames
    clips = [number % 3 for number in range(STREAMS)]
    arrays = {
        name: np.stack([frame_inputs(vectors.inputs, index)[name][clips] for index in range(frames)], axis=1)
        for name in vectors.inputs
    }
    found, errors = run_streams(served, bundle, arrays, tmp_path)
    assert errors == [""] * STREAMS
    np.testing.assert_allclose(found, vectors.outputs["probability"][clips], rtol=0, atol=ATOL)
    log = served.log.read_text(errors="replace")
    assert not re.search(r"^E\d", log.partition("Started GRPC")[2], re.MULTILINE), log[-2000:]


def test_sound_that_is_no_number_fails_its_own_stream(served: Server, bundle: Bundle, tmp_path: Path) -> None:
    vectors = next(one for one in bundle.vectors() if one.record.clips == 3)
    frames = bundle.manifest.clip.frames
    arrays = {
        name: np.stack([frame_inputs(vectors.inputs, index)[name] for index in range(frames)], axis=1)
        for name in vectors.inputs
    }
    arrays["waveform"] = arrays["waveform"].copy()
    arrays["waveform"][1, 1] = np.nan
    found, errors = run_streams(served, bundle, arrays, tmp_path)
    assert [bool(error) for error in errors] == [False, True, False]
    assert "NaN or infinity" in errors[1]
    np.testing.assert_allclose(found, vectors.outputs["probability"][[0, 2]], rtol=0, atol=ATOL)


def run_streams(
    served: Server, bundle: Bundle, arrays: dict[str, np.ndarray], folder: Path
) -> tuple[np.ndarray, list[str]]:
    """All streams at the same time: the masks of those that came to their end, and the errors of all."""
    np.savez(folder / "in.npz", **arrays)
    address = served.spec("avs-bg-stream").removeprefix("triton:")
    files = [folder / "in.npz", folder / "out.npz"]
    done = run_there("triton", FIXTURES / "served_streams.py", bundle.path, address, *files)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as results:
        return results["masks"], results["errors"].tolist()


def test_a_video_through_the_server_has_the_masks_of_this_machine(served: Server, tiny: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", times=steady(5, 10), sound=tone(2.0))
    there, here = tmp_path / "there", tmp_path / "here"
    done = run_avsbg_there("triton", "run", tiny.path, video, "-o", there, "--backend", served.spec("tiny-clip"))
    assert done.returncode == 0, done.stderr
    assert run_avsbg("run", tiny.path, video, "-o", here).code == 0
    names = sorted(path.name for path in (here / "masks").iterdir())
    assert names
    for name in names:
        assert (there / "masks" / name).read_bytes() == (here / "masks" / name).read_bytes()


def test_a_benchmark_measures_the_server_beside_this_machine(served: Server, tiny: Bundle, tmp_path: Path) -> None:
    specs, out = (served.spec("tiny-clip"), "onnxruntime:plain"), tmp_path / "out"
    video = write_video(tmp_path / "video.mp4", times=steady(5, 10), sound=tone(2.0))
    command = ["bench", "run", tiny.path, "-o", out, "--scope", "end-to-end", "--video", video, "--no-memory"]
    command += ["--samples", "3", "--seconds", "0", "--warmup", "1", "--allow-unstable", "--threads", "1"]
    command += [part for spec in specs for part in ("--backend", spec)]
    done = run_avsbg_there("triton", *command)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [(row["ran"]["backend"]["backend"], row["label"]) for row in rows] == [
        ("triton", f"tiny:{specs[0]}"),
        ("onnxruntime", "tiny:onnxruntime:plain"),
    ]
    assert all(len(row["metrics"]["latency"]["samples"]) >= 3 for row in rows)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("avs-bg-clip", "has the input frames as UINT8 [3, 64, 96, 3], and the bundle"),
        ("nothing", "refused the model nothing or its request"),
        ("avs-bg-stream", "is a model of streams"),
    ],
)
def test_another_bundles_model_is_refused(
    served: Server, tiny: Bundle, tmp_path: Path, model: str, problem: str
) -> None:
    done = run_avsbg_there("triton", "verify", tiny.path, "--backend", served.spec(model))
    assert done.returncode == 1
    assert problem in " ".join(done.stderr.split())


def test_clients_that_mean_no_good_get_an_error_and_the_server_goes_on(
    served: Server, tiny: Bundle, bundle: Bundle, tmp_path: Path
) -> None:
    before = resident(served)
    script, ports = FIXTURES / "triton_attack.py", (served.http, served.grpc)
    done = run_there("triton", script, tiny.path, bundle.path, *ports, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    for name, (status, text) in told["answers"].items():
        assert status != "OK" and (isinstance(status, str) or status >= 400), (name, status, text)
        assert text, name
    assert told["flood"] == {"OK": 200}
    assert max(told["differences"]) < ATOL
    assert served.process.poll() is None
    assert resident(served) - before < 300
    assert not list(tmp_path.iterdir())


def resident(server: Server) -> int:
    """The memory of a server and of its models' processes, in MiB."""
    process = psutil.Process(server.process.pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) // 2**20


def write_certificates(folder: Path) -> None:
    """An authority and what it signed, for a server on the loopback and for a client; and another authority."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("authority", "other", "server", "client"):
        command = ["openssl", "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        command += ["-subj", f"/CN={name}"]
        if name in ("server", "client"):
            command += ["-CA", "authority.pem", "-CAkey", "authority.key", "-addext", "basicConstraints=CA:FALSE"]
            command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)


def test_an_encrypted_server_answers_whom_it_knows_and_its_end_leaves_nothing_half_written(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, models, work = (tmp_path / name for name in ("keys", "models", "work"))
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    keys.mkdir()
    work.mkdir()
    write_certificates(keys)
    assert run_avsbg("serve", "triton", tiny.path, "--name", "tiny", "--threads", "1", "-o", models).code == 0
    files = {"server-cert": "server.pem", "server-key": "server.key", "root-cert": "authority.pem"}
    options = ["--grpc-use-ssl-mutual=true", *(f"--grpc-{name}={keys / file}" for name, file in files.items())]
    with tritonserver(models, tmp_path / "log", *options) as server:
        address = f"127.0.0.1:{server.grpc}/tiny-clip"
        done = run_there("triton", FIXTURES / "triton_encrypted.py", tiny.path, address, keys)
        assert done.returncode == 0, done.stderr[-3000:]
        told = json.loads(done.stdout)
        assert (told.pop("known"), told.pop("token")) == ("", "")
        assert "does not let this client in: no such token. The token is taken from" in told.pop("other token")
        assert "AVSBG_TRITON_CA" in told.pop("other roots")
        assert "AVSBG_TRITON_CERTIFICATE" in told.pop("no certificate")
        assert "one that encrypts needs grpcs://" in told.pop("not encrypted")
        assert told == {}
        for name, file in {"CA": "authority.pem", "KEY": "client.key", "CERTIFICATE": "client.pem"}.items():
            monkeypatch.setenv(f"AVSBG_TRITON_{name}", str(keys / file))
        video = write_video(work / "video.mp4", times=steady(5, 10), sound=tone(2.0))
        command = ["run", tiny.path, video, "-o", work / "out"]
        command += ["--backend", server.spec("tiny-clip", "grpcs", timeout=2)]
        server.process.send_signal(signal.SIGSTOP)
        silent = run_avsbg_there("triton", *command)
        server.process.send_signal(signal.SIGCONT)
        assert silent.returncode == 1
        assert "did not answer within 2 s" in " ".join(silent.stderr.split())
        server.process.kill()
        server.process.wait(60)
        gone = run_avsbg_there("triton", *command)
    assert gone.returncode == 1
    assert "cannot be reached" in " ".join(gone.stderr.split())
    assert "Traceback" not in silent.stderr + gone.stderr
    assert [path.name for path in work.iterdir()] == ["video.mp4"]
