"""`avsbg batch` with the real programs: results, resuming, broken videos, and a cluster that loses a worker."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from avsbg.runtime.bundle import Bundle
from fixtures.cli import run_avsbg
from fixtures.environments import environment, run_avsbg_there, run_there
from fixtures.videos import steady, tone, write_video

pytestmark = pytest.mark.slow
VIDEOS = 12

# In the environment: a table of results as JSON.
READ = """
import json, sys
from pyarrow import parquet
print(json.dumps(parquet.read_table(sys.argv[1]).to_pylist()))
"""
# A table of paths.
WRITE = """
import sys, pyarrow
from pyarrow import csv, parquet
table = pyarrow.table({"video": sys.argv[2:], "number": list(range(len(sys.argv) - 2))})
(csv.write_csv if sys.argv[1].endswith(".csv") else parquet.write_table)(table, sys.argv[1])
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small videos, no two alike."""
    environment("services")
    folder = tmp_path_factory.mktemp("videos")
    for number in range(VIDEOS):
        sound = tone(3.0, amplitude=0.2 + 0.05 * number)
        write_video(folder / f"{number:02}.mp4", times=steady(4, 12), rate=4, sound=sound)
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    """The files that a run wrote, without what differs from run to run: times, and places."""
    names = {"summary.json", "results.parquet", "batch.json"}
    return {
        str(path.relative_to(folder)): decode(path) if path.suffix == ".mp4" else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in names
    }


def decode(path: Path) -> bytes:
    """The times, pictures and sound of an overlay: now and then x264 pads its first packet by one byte more."""
    with av.open(str(path)) as container:
        parts = [
            part
            for packet in container.demux()
            for part in (
                [bytes(packet)]
                if packet.stream.type == "audio"
                else [b"%d" % frame.pts + frame.to_ndarray().tobytes() for frame in packet.decode()]
            )
        ]
    assert len(parts) > 12
    return b"".join(parts)


def results(folder: Path) -> dict[str, dict]:
    rows = json.loads(run_there("services", "-c", READ, folder / "results.parquet", check=True).stdout)
    assert len({row["source"] for row in rows}) == len(rows)
    return {Path(row["source"]).name: row for row in rows}


def test_over_two_nodes_with_a_worker_killed_each_video_has_the_bytes_of_one_process(
    tiny: Bundle, videos: Path, tmp_path: Path
) -> None:
    script = Path(__file__).parents[2] / "fixtures/ray_cluster.py"
    done = run_there("services", script, tiny.path, videos, tmp_path / "cluster", tmp_path / "report")
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((tmp_path / "report").read_text())
    assert told["nodes"] == 2
    assert len(told["killed"]) == 1
    assert len(set(told["workers"]) - set(told["killed"])) >= 1
    # The worker may have been killed between the end of its video and the word of it: then its successor finds it done.
    finished = told["states"].pop("finished before", 0)
    assert finished <= 1
    assert (told["states"], told["most"], told["errors"]) == ({"done": VIDEOS - finished}, 1, [])
    one = run_avsbg("run", tiny.path, videos, "-o", tmp_path / "one", "--backend", "onnxruntime", "--rate", "1")
    assert one.code == 0, one.output
    assert outputs(tmp_path / "cluster") == outputs(tmp_path / "one")
    assert len(results(tmp_path / "cluster")) == VIDEOS


def test_a_worker_that_dies_takes_no_other_video_along_and_one_that_cannot_start_is_told(
    tiny: Bundle, videos: Path, tmp_path: Path
) -> None:
    few, output = tmp_path / "few", tmp_path / "out"
    for folder in (few, output):
        folder.mkdir()
    for name in ("00.mp4", "01.mp4"):
        shutil.copy(videos / name, few)
    script = Path(__file__).parents[2] / "fixtures/ray_deaths.py"
    done = run_there("services", script, tiny.path, few, output, tmp_path / "report")
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((tmp_path / "report").read_text())
    state, error = told["results"].pop("deadly://video")
    assert (state, "its worker died twice" in error) == ("failed", True)
    assert told["results"] == {str(few / name): ["done", None] for name in ("00.mp4", "01.mp4")}
    assert "workers of the cluster fail to start: there is no bundle at" in told["error"]
    assert "Each node needs avsbg, the bundle" in told["error"]


def test_what_is_done_is_not_done_again_and_what_is_broken_has_its_reason(
    tiny: Bundle, videos: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for name in ("00.mp4", "01.mp4"):
        shutil.copy(videos / name, folder)
    (folder / "broken.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    command = ["batch", tiny.path, folder, "-o", output, "--backend", "onnxruntime", "--no-overlay"]
    (tmp_path / "folder.mp4").mkdir()  # opened as a file, it gives an error of input or output
    first = run_avsbg_there("services", *command, f"file://{tmp_path}/folder.mp4")
    assert first.returncode == 1
    assert "2 of 4 videos failed" in " ".join(first.stderr.split())
    rows = results(output)
    assert {name: (row["state"], row["attempts"]) for name, row in rows.items()} == {
        "00.mp4": ("done", 1),
        "01.mp4": ("done", 1),
        "broken.mp4": ("failed", 1),
        "folder.mp4": ("failed", 2),
    }
    assert "broken.mp4" in rows["broken.mp4"]["error"]
    shutil.copy(videos / "02.mp4", folder / "broken.mp4")
    again = run_avsbg_there("services", *command)
    assert again.returncode == 0, again.stderr
    assert {name: row["state"] for name, row in results(output).items()} == {
        "00.mp4": "finished before",
        "01.mp4": "finished before",
        "broken.mp4": "done",
        "folder.mp4": "failed",  # of the first run
    }


@contextmanager
def web(folder: Path) -> Iterator[str]:
    """The address of a server of a folder's files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_videos_of_a_server(tiny: Bundle, videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with web(videos) as address:
        sources = [f"{address}/05.mp4", f"{address}/none.mp4"]
        command = ["batch", tiny.path, *sources, "-o", output, "--backend", "onnxruntime", "--no-overlay"]
        done = run_avsbg_there("services", *command)
    assert done.returncode == 1
    rows = results(output)
    assert (rows["05.mp4"]["state"], rows["05.mp4"]["video_seconds"]) == ("done", 3)
    assert rows["none.mp4"]["error"] == f"there is no video at {sources[1]}."
    absent = run_avsbg_there("services", "batch", tiny.path, "nothing://05.mp4", "-o", output)
    assert "nothing://05.mp4 cannot be opened here: Protocol not known: nothing" in " ".join(absent.stderr.split())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_to_an_address(tiny: Bundle, videos: Path, tmp_path: Path, suffix: str) -> None:
    """The file system `file://` of fsspec stands for any: no rename, and a summary that comes last."""
    table, output = tmp_path / f"table{suffix}", tmp_path / "out"
    paths = [videos / "03.mp4", f"file://{videos}/04.mp4"]
    run_there("services", "-c", WRITE, table, *paths, check=True)
    command = ["batch", tiny.path, table, "-o", f"file://{output}", "--backend", "onnxruntime"]
    for state in ("done", "finished before"):
        done = run_avsbg_there("services", *command)
        assert done.returncode == 0, done.stderr
        assert {row["state"] for row in results(output).values()} == {state}
    missing = run_avsbg_there("services", *command, "--column", "path")
    assert missing.returncode == 1
    assert "has no column 'path'. It has: video, number." in " ".join(missing.stderr.split())
    command = ["run", tiny.path, videos / "03.mp4", "-o", tmp_path / "here", "--backend", "onnxruntime"]
    assert run_avsbg(*command, "--rate", "1").code == 0
    assert outputs(output / "03.mp4") == outputs(tmp_path / "here")


def test_a_cluster_that_is_not_there_is_an_error(tiny: Bundle, videos: Path, tmp_path: Path) -> None:
    address = ["--engine", "ray", "--address", "127.0.0.1:1"]
    done = run_avsbg_there("services", "batch", tiny.path, videos, "-o", tmp_path / "out", *address)
    assert done.returncode == 1
    assert "there is no Ray cluster at 127.0.0.1:1" in " ".join(done.stderr.split())
