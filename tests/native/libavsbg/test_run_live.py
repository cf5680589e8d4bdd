"""avsbg-run on live sources: generators, and servers on this machine's loopback."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avsbg.runtime.bundle import Bundle
from fixtures import libavsbg
from fixtures.native_run import decode, run, run_python
from fixtures.odd_videos import remux, serve, write_marked
from fixtures.rtsp import serve_rtsp
from fixtures.videos import steady, tone, write_video

pytestmark = pytest.mark.native


def test_a_video_over_http_gives_the_masks_of_the_file(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.ts", times=steady(25, 100), sound=tone(5))
    with serve(tmp_path) as address:
        run(program, tiny.path, f"{address}/v.ts", "-o", tmp_path / "live", "--duration", "60")
    run_python(tiny, path, tmp_path / "file", overlay=True)
    summary = json.loads((tmp_path / "live" / "summary.json").read_text())
    ended = {"ended": "by itself", "policy": "block", "microphone": None, "damaged": 0, "late_sound": 0}
    assert (summary["video"]["live"], summary["seconds"]) == (ended, 4)
    found, expected = (sorted((tmp_path / side / "masks").iterdir()) for side in ("live", "file"))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(ours)), np.asarray(Image.open(theirs)))
    shown = [decode(tmp_path / side / "overlay.mp4")[1] for side in ("live", "file")]
    assert len(shown[0]) == len(shown[1]) == 100


def test_rtsp_whose_first_frames_have_no_time_stamps(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    with serve_rtsp() as address:
        run(program, tiny.path, address, "-o", tmp_path / "out", "--duration", "3")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["seconds"], summary["dropped_seconds"], summary["video"]["live"]["damaged"]) == (3, 0, 0)
    assert [np.asarray(Image.open(path)).min() for path in sorted((tmp_path / "out" / "masks").iterdir())] == [255] * 3
    assert 25 <= len(decode(tmp_path / "out" / "overlay.mp4")[1]) <= 35


def test_a_generator_streams_until_it_is_stopped(tiny_stream: Bundle, program: Path, tmp_path: Path) -> None:
    """A camera and a microphone, at their own pace, of a bundle that can be streamed; Ctrl-C keeps what had come."""
    camera, microphone = "lavfi:testsrc2=size=64x48:rate=10,realtime=speed=4", "lavfi:sine,arealtime=speed=4"
    command = [program, tiny_stream.path, camera, "--microphone", microphone, "-o", tmp_path / "out", "--rate", "1"]
    command += ["--runtime-library", libavsbg.onnxruntime_library(), "--policy", "block"]
    words = list(map(str, command))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watched = time.monotonic()
        while time.monotonic() - watched < libavsbg.TIMEOUT and process.poll() is None:
            if any(tmp_path.glob(".out.*.partial/new/masks/*.png")):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=libavsbg.TIMEOUT)
    if "libavdevice" in told:
        pytest.skip(told)
    assert process.returncode == 130, told
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["video"]["live"]["ended"] == "stopped" and summary["video"]["live"]["microphone"] == microphone
    assert (summary["backend"]["mode"], summary["backend"]["spacing"]) == ("stream", "timestamp")
    assert summary["seconds"] == len(list((tmp_path / "out" / "masks").iterdir())) >= 1
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size


def test_a_sender_of_datagrams(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    content = write_video(tmp_path / "v.ts", times=steady(25, 100), sound=tone(4), encoder={"g": "5"}).read_bytes()
    done = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            # Again and again, since the program may open the port late: it then ends where the time stamps step back.
            while not done.is_set():
                for start in range(0, len(content), 1316):
                    sender.sendto(content[start : start + 1316], ("127.0.0.1", port))
                    done.wait(1316 / len(content))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        command = [program, tiny.path, f"udp://127.0.0.1:{port}", "-o", tmp_path / "out", "--duration", "3"]
        command += ["--no-overlay", "--policy", "block", "--runtime-library", libavsbg.onnxruntime_library()]
        words = list(map(str, command))
        ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=libavsbg.TIMEOUT)
    finally:
        done.set()
        sender.join()
    assert ran.returncode == 0 or "probably restarted" in ran.stderr, ran.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["seconds"] >= 1 and summary["video"]["live"]["policy"] == "block"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://127.0.0.1:9/v.ts", "cannot be opened: Connection refused. Check the address, and that the sender"),
        ("v4l2:/dev/video99", "v4l2:/dev/video99 cannot be opened"),
        ("/dev/video99", "/dev/video99 cannot be opened"),
        ("v4l2:x?y", "are not NAME=VALUE"),
        ("file:///etc/passwd", "is no address that can be read"),
        ("concat://a", "is no address that can be read"),
    ],
)
def test_a_source_that_cannot_be_opened(tiny: Bundle, program: Path, tmp_path: Path, source: str, message: str) -> None:
    refused = run(program, tiny.path, source, "-o", tmp_path / "out", expect=1)
    assert message in refused.stderr or "needs FFmpeg's library libavdevice" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_a_source_that_goes_away_is_an_error_and_what_had_come_is_kept(
    tiny: Bundle, program: Path, tmp_path: Path
) -> None:
    """Its time stamps jump, as of a sender that was restarted."""
    first = write_marked(tmp_path / "a.ts", seconds=3)
    later = remux(first, tmp_path / "b.ts", shift=lambda *_: 500.0)
    (tmp_path / "c.ts").write_bytes(first.read_bytes() + later.read_bytes())
    with serve(tmp_path) as address:
        failed = run(program, tiny.path, f"{address}/c.ts", "-o", tmp_path / "out", "--no-sound", expect=1)
    assert "It was probably restarted; restart this command as well." in failed.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["seconds"] >= 2 and "time stamps" in summary["video"]["live"]["ended"]
