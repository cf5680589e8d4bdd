"""The GStreamer example with Debian's GStreamer: picture and sound of one pipeline in, a file or RTSP out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from fixtures import ROOT
from fixtures.rtsp import run_server

EXAMPLE = ROOT / "examples/gstreamer/sounding.py"
# Black pictures; sound that is +1 for a second, then -1 for one, and so on: the network's masks are all or nothing.
PICTURE = "videotestsrc {} pattern=black ! video/x-raw,framerate=10/1"
SOUND = "audiotestsrc {} samplesperbuffer=1600 wave=square freq=0.5 volume=1.0 ! audio/x-raw,rate=16000"
OPTIONS = ["--backend", "onnxruntime", "--size", "64", "48", "--fps", "10", "--rate", "5"]


@pytest.fixture(scope="session")
def command() -> tuple[list[str], dict[str, str]]:
    """A Python with GStreamer that can import avsbg, and its environment."""
    site = next(folder for folder in sys.path if folder.endswith("site-packages"))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{site}"}
    ask = "import gi, sys; gi.require_version('GstRtspServer', '1.0'); import numpy, pydantic_core; assert sys.argv[1:]"
    for python in ("/usr/bin/python3", sys.executable):
        done = subprocess.run([python, "-c", ask, "-"], env=environment, capture_output=True, check=False)
        if done.returncode == 0:
            return [python, str(EXAMPLE)], environment
    pytest.skip("no Python here has both GStreamer and the packages of avsbg")


def reds(video: Iterator[av.VideoFrame]) -> np.ndarray:
    """The red value in the middle of each frame; other colours are as dark as they were."""
    return np.array([int(frame.to_ndarray(format="rgb24")[24, 32, 0]) for frame in video])


def test_a_file_shows_the_mask_while_it_sounds(
    command: tuple[list[str], dict[str, str]], tiny_stream: Bundle, tmp_path: Path
) -> None:
    words, environment = command
    sources = ["--picture", PICTURE.format("num-buffers=60"), "--sound", SOUND.format("num-buffers=60")]
    output = tmp_path / "out.mp4"
    done = subprocess.run(
        [*words, tiny_stream.path, *sources, *OPTIONS, "--file", output],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "30 masks\n"  # six seconds, five a second
    with av.open(str(output)) as video:
        red = reds(video.decode(video=0))
    assert len(red) >= 58 and set(red > 64) == {True, False}
    # A frame's sound begins 15/16 s before it, so that the first second has none.
    assert not (red[:9] > 64).any()
    changes = np.flatnonzero(np.diff((red > 64).astype(int)))
    assert 2 <= len(changes) <= 5  # tinted for a second in two


def test_a_client_gets_the_masks_by_rtsp(command: tuple[list[str], dict[str, str]], tiny_stream: Bundle) -> None:
    words, environment = command
    sources = ["--picture", PICTURE.format("is-live=true"), "--sound", SOUND.format("is-live=true"), "--mask"]
    command_line = [*words, str(tiny_stream.path), *sources, *OPTIONS, "--rtsp", "0"]
    with (
        run_server(command_line, environment) as address,
        av.open(address, options={"rtsp_transport": "tcp"}, timeout=60) as stream,
    ):
        frames = list(islice(stream.decode(video=0), 30))
    assert (frames[0].width, frames[0].height) == (64, 48)
    red = reds(iter(frames))
    assert red.min() < 16 and red.max() > 235  # black and white: three seconds hold both


def test_a_source_that_does_not_exist_is_an_error(
    command: tuple[list[str], dict[str, str]], tiny_stream: Bundle, tmp_path: Path
) -> None:
    words, environment = command
    sources = ["--picture", f"filesrc location={tmp_path}/none ! decodebin", "--sound", SOUND.format("num-buffers=5")]
    done = subprocess.run(
        [*words, tiny_stream.path, *sources, *OPTIONS, "--file", tmp_path / "out.mp4"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1 and "error: GStreamer: Resource not found" in done.stderr
