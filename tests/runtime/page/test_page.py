"""The page `avsbg demo-page` in a real browser, and clients that mean no good."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from fixtures.environments import PATIENCE, environment, environment_variables, held_port, run_there
from fixtures.videos import steady, tone, write_video

pytestmark = pytest.mark.slow
FIXTURES = ROOT / "tests/fixtures"


@dataclass(frozen=True)
class Shown:
    """A page that is shown."""

    process: subprocess.Popen[bytes]
    address: str
    temporary: Path  # where it makes its files


@pytest.fixture
def shown(tiny: Bundle, tmp_path: Path) -> Iterator[Shown]:
    """The page of the tiny bundle, for files of 2 MB and videos of 10 s."""
    python, temporary = environment("services") / "bin/python", tmp_path / "tmp"
    temporary.mkdir()
    environ = {**environment_variables(), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with held_port() as port, (tmp_path / "log").open("wb") as log:
        command = [python, "-c", "from avsbg.cli import main; main()", "demo-page", tiny.path, "--port", str(port)]
        command += ["--megabytes", "2", "--seconds", "10", "--patience", "100"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=tmp_path)
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        try:
            while True:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
                try:
                    with urllib.request.urlopen(address, timeout=5):
                        break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.2)
            yield Shown(process, address, temporary)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def resident(process: subprocess.Popen[bytes]) -> int:
    """A process's memory, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024


def test_people_upload_play_download_and_are_told_what_is_wrong(shown: Shown, tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("there is no Chromium")
    video = write_video(tmp_path / "video.mp4", times=steady(15, 45), rate=15, size=(320, 240), sound=tone(3.0))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:2000] + np.random.default_rng(0).bytes(3000))
    done = run_there("services", FIXTURES / "page_browser.py", shown.address, video, broken, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert "Choose a video" in seen["nothing"]
    # Pixels that sound at 0.5 do not at 0.95: each of the two people has the answer to their own question.
    # The progress may still stand above it, on its way out.
    for status, sounding in zip(seen["statuses"], (3, 1), strict=True):
        assert re.search(rf"(?m)^3 masks in .* masks per second\..* sounds in {sounding} of 3 seconds", status), status
    assert seen["backends"] == ["auto", "onnxruntime:function", "onnxruntime:native", "onnxruntime:plain"]
    draws = run_there("services", "-c", "from avsbg.export.visualize.sheet import can_draw; print(can_draw())")
    maps = draws.stdout.strip() == "True"
    assert seen["draws"] is maps, "maps are offered where they can be drawn"
    # Backend, threshold, silence, attention maps.
    asked = [["auto", 0.5, False, False], ["auto", 0.5, False, maps], ["onnxruntime:plain", 0.95, False, False]]
    asked += [["auto", 0.5, True, maps], ["auto", 0.5, False, False], ["auto", 0.5, False, False]]
    assert seen["asked"] == asked
    # The tiny network has none, which is said beside its masks.
    assert ["There are no attention maps" in status for status in seen["statuses"]] == [maps, False]
    assert re.search(r"(?m)^[1-9]\d* masks in", seen["recorded"]), seen["recorded"]
    assert "Not done" in seen["broken"] and str(tmp_path) not in seen["broken"]
    assert seen["tracks"]
    assert seen["overflow"] == [0, 0]
    assert set(seen["hosts"]) == {shown.address.removeprefix("http://")}
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        assert {"summary.json", "overlay.mp4", "masks/00000.png"} <= set(archive.namelist())
    assert (tmp_path / "1280.png").is_file() and (tmp_path / "390.png").is_file()
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(60) == 130
    assert not list(shown.temporary.glob("avsbg*"))


def test_clients_that_mean_no_good_get_an_error_and_the_page_goes_on(shown: Shown, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret of this machine")
    before = resident(shown.process)
    done = run_there("services", FIXTURES / "page_attack.py", shown.address, secret, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["uploads"]["large"] == 413
    for kind, (code, told) in seen["bodies"].items():
        # A client that still sends may find its connection closed before it reads the answer.
        assert code == {"ten files": 400}.get(kind, 413) or (code == 0 and "request" in kind), (kind, code, told)
    assert "one file at a time" in seen["bodies"]["ten files"][1]
    assert seen["other_routes"].pop("kept name") == 414
    assert set(seen["other_routes"].values()) == {404}, seen["other_routes"]
    (folder,) = shown.temporary.glob("avsbg*/files")
    assert not [one for one in folder.iterdir() if one.is_file()], "the upload that was broken off is removed"
    # `.ses` is ONNX Runtime's.
    assert {one.name for one in shown.temporary.iterdir()} <= {folder.parent.name, ".ses"}
    assert Path(seen["uploads"]["path"]).resolve().is_relative_to(folder)
    assert all(code >= 400 and not leaked for code, leaked in seen["traversal"]), seen["traversal"]
    for kind in ("given_path", "not_a_video", "playlist"):
        assert "masks per second" not in seen[kind], kind
        assert secret.read_text() not in seen[kind]
    assert (
        "Not done" in seen["not_a_video"] and str(shown.temporary) not in seen["not_a_video"].partition("Not done")[2]
    )
    for kind in ("address", "hidden_address"):
        assert "takes files that are uploaded, and no addresses" in seen[kind], seen[kind]
    assert set(seen["flood"]) <= {200, 503} and len(seen["flood"]) == 200
    assert seen["flood"].count(503) >= 100
    assert seen["after"] == 200
    assert shown.process.poll() is None
    assert resident(shown.process) - before < 300
    assert all(path.is_relative_to(folder) for path in tmp_path.parent.glob("**/escaped.mp4"))
    assert not Path("/escaped.mp4").exists()
