"""`avsbg run` where something goes wrong: signals, a full disk, a bundle that is updated meanwhile."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from avsbg.runtime.bundle import Bundle, sha256, update_bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from fixtures import tiny_bundle
from fixtures.cli import AVSBG, run_avsbg
from fixtures.videos import steady, tone, write_video

pytestmark = pytest.mark.slow

ENDLESS = "lavfi:testsrc2=size=320x240:rate=25[out0];sine=frequency=440,volume=8[out1]"


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seconds of work, enough to be interrupted in."""
    path = tmp_path_factory.mktemp("videos") / "long.mkv"
    return write_video(path, times=steady(25, 2500), size=(320, 240), sound=tone(100))


def until(condition: object, seconds: float = 300) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_finished_and_removes_the_rest(
    tiny: Bundle, long_video: Path, tmp_path: Path, number: int, code: int
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_video(folder / "a.mp4", times=steady(25, 50), sound=tone(2))
    (folder / "b.mkv").symlink_to(long_video)
    process = subprocess.Popen(
        [*AVSBG, "run", tiny.path, folder, "-o", out], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    until(lambda: (out / "a.mp4/summary.json").is_file() and list(out.glob(".b.mkv.*/new/frames.jsonl")))
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code
    assert b"1 of 2 finished and kept" in errors
    assert b"Traceback" not in errors
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "batch.json"]
    assert [one["state"] for one in json.loads((out / "batch.json").read_text())] == ["done", "not done"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_completes_a_live_source(tiny: Bundle, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*AVSBG, "run", tiny.path, ENDLESS, "-o", out], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    until(lambda: list(tmp_path.glob(".out.*/new/masks/00008.png")))
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["video"]["live"]["ended"] == "stopped"
    assert len(list((out / "masks").iterdir())) == summary["seconds"] >= 9


@pytest.mark.parametrize("what", ["overlay", "masks", "video", "rle"])
def test_a_full_disk(tiny: Bundle, tmp_path: Path, what: str) -> None:
    """A limit on the size of files fails as a full disk does: in the middle of a write, in whatever library."""
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_video(tmp_path / f"in/{name}.mp4", times=steady(25, 250), size=(320, 240), sound=tone(10))
    options = {
        "overlay": ["--masks", "none"], "masks": ["--no-overlay"], "video": ["--no-overlay", "--masks", "video"],
        "rle": ["--no-overlay", "--masks", "none", "--rle"],
    }[what]  # fmt: skip
    limit = {"overlay": 8000, "masks": 150, "video": 600, "rle": 1000}[what]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        result = run_avsbg("run", tiny.path, tmp_path / "in", "-o", tmp_path / "out", *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    errors = result.paragraph
    assert result.code == 1
    assert "File too large" in errors
    assert "nothing of it was kept" in errors
    assert "Make room" in errors
    # The second video would have failed alike, and was not begun.
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"batch.json"}


def test_a_disk_that_is_really_full(tiny: Bundle, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True, check=False
    ) if os.geteuid() == 0 else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("only root may mount a small disk, and not everywhere")
    try:
        video = write_video(tmp_path / "v.mkv", times=steady(25, 500), size=(320, 240), sound=tone(20))
        done = subprocess.run(
            [*AVSBG, "run", tiny.path, video, "-o", disk / "out"],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 1
        assert "No space left on device" in " ".join(done.stderr.split())
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_two_processes_on_one_bundle_while_it_is_updated(long_video: Path, tmp_path: Path) -> None:
    """Both go on with the bundle that they opened, though another takes its place several times."""
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle", vectors=False)
    opened = sha256(bundle.path / MANIFEST)
    outputs = [tmp_path / "one", tmp_path / "two"]
    processes = [
        subprocess.Popen(
            [*AVSBG, "run", bundle.path, long_video, "-o", output, "--masks", "none", "--no-overlay"],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for output in outputs
    ]
    until(lambda: all(list(tmp_path.glob(f".{output.name}.*/new/frames.jsonl")) for output in outputs))
    for round_ in range(3):
        with update_bundle(Bundle.open(bundle.path)) as update:
            record = update.bundle.manifest.graphs["clip"]
            update.graphs["clip"] = record.model_copy(update={"node_count": record.node_count + round_ + 1})
    assert sha256(bundle.path / MANIFEST) != opened
    for process, output in zip(processes, outputs, strict=True):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert json.loads((output / "summary.json").read_text())["bundle"]["manifest_sha256"] == opened
    assert (tmp_path / "one/frames.jsonl").read_text() == (tmp_path / "two/frames.jsonl").read_text()


def test_a_bundle_can_be_opened_at_any_moment_of_an_update(tmp_path: Path) -> None:
    bundle = tiny_bundle.make_bundle(tmp_path / "bundle", vectors=False)
    stop, failures = threading.Event(), []

    def update() -> None:
        try:
            for round_ in range(25):
                with update_bundle(Bundle.open(bundle.path)) as update:
                    record = update.bundle.manifest.graphs["clip"]
                    update.graphs["clip"] = record.model_copy(update={"node_count": record.node_count + round_ + 1})
        except Exception as error:
            failures.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=update)
    thread.start()
    opened = set()
    while not stop.is_set():
        try:
            opened.add(Bundle.open(bundle.path).manifest_sha256)
        except Exception as error:
            failures.append(error)
            break
    thread.join()
    assert not failures
    assert len(opened) > 1


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_reader_that_leaves_is_no_failure(tiny: Bundle, tmp_path: Path, closed: str) -> None:
    """As in `avsbg run ... | head -1`."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(3):
        write_video(folder / f"{number}.mkv", times=steady(25, 25), sound=tone(1))
    process = subprocess.Popen(
        [*AVSBG, "run", tiny.path, folder, "-o", tmp_path / "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pipe, other = (process.stdout, process.stderr) if closed == "stdout" else (process.stderr, process.stdout)
    assert pipe is not None
    assert other is not None
    pipe.close()
    with other:
        text = other.read()
    assert process.wait(60) == 0
    assert "Traceback" not in text
    assert all((tmp_path / "out" / f"{number}.mkv" / "summary.json").is_file() for number in range(3))


@pytest.mark.parametrize("many", [False, True])
def test_an_output_that_cannot_be_written_is_told_once(tiny: Bundle, tmp_path: Path, many: bool) -> None:
    videos = [
        write_video(tmp_path / f"{name}.mkv", times=steady(5, 5), rate=5, sound=tone(1)) for name in "ab"[: 1 + many]
    ]
    (tmp_path / "taken").touch()
    result = run_avsbg("run", tiny.path, *videos, "-o", tmp_path / "taken" / "out:100:a")
    assert result.code == 1
    assert result.paragraph.count("cannot be written") == 1 and "out:100:a" in result.paragraph


def test_a_place_that_may_not_be_looked_at_is_named(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may look everywhere, so that the system's refusal is played."""
    video, stat = tmp_path / "locked" / "a.mp4", Path.stat

    def refuse(path: Path, **options: bool) -> object:
        if path == video:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    result = run_avsbg("run", tiny.path, video, "-o", tmp_path / "out")
    assert result.code == 1 and f"error: {video}: permission denied." in result.err
    assert not (tmp_path / "out").exists()
