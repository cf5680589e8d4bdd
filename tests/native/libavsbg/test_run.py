"""avsbg-run against `avsbg run`: the same videos, the same files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.run import segment_video
from avsbg.runtime.segment.segmenter import ClipSegmenter
from fixtures import libavsbg
from fixtures.videos import real_video, steady, tone, write_video

pytestmark = pytest.mark.native


@pytest.fixture(scope="session")
def program() -> Path:
    prefix = libavsbg.build(targets=(*libavsbg.TARGETS, "avsbg_run"))
    return prefix / "bin" / "avsbg-run"


def run(program: Path, *arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    library = ["--runtime-library", libavsbg.onnxruntime_library()]
    command = [str(each) for each in (program, *arguments, *library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def run_python(bundle: Bundle, video: Path, output: Path, **options: Any) -> dict[str, Any]:
    with create("onnxruntime", bundle) as backend:
        return segment_video(ClipSegmenter(backend, "onnxruntime"), video, output, Options(overlay=False, **options))


def compare(ours: Path, theirs: Path, *, share: float = 0.001) -> None:
    """Hold an output against Python's: all fields but those of time and versions, and masks to a share of pixels."""
    found, expected = (json.loads((path / "summary.json").read_text()) for path in (ours, theirs))
    for summary in (found, expected):
        for name in ("versions", "seconds_spent", "most_waiting", "mean_mask_area"):
            assert summary.pop(name) is not None
        summary["video"].pop("key")
    assert found == expected
    lines = [[json.loads(line) for line in (path / "frames.jsonl").read_text().splitlines()] for path in (ours, theirs)]
    assert [(line["second"], line["time"]) for line in lines[0]] == [
        (line["second"], line["time"]) for line in lines[1]
    ]
    assert list(lines[0][0]) != [] and set(lines[0][0]) == set(lines[1][0])
    files = [sorted(str(one.relative_to(path)) for one in path.rglob("*")) for path in (ours, theirs)]
    assert files[0] == files[1]
    for mask in sorted((theirs / "masks").iterdir()):
        images = [np.asarray(Image.open(path / "masks" / mask.name)) for path in (ours, theirs)]
        assert images[0].shape == images[1].shape
        assert np.mean(images[0] != images[1]) <= share, mask.name


def test_a_real_video_gives_the_files_of_python(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    video = real_video()
    run(
        program,
        tiny.path,
        video,
        "-o",
        tmp_path / "ours",
        "--no-overlay",
        "--rle",
        "--probabilities",
        "--threshold",
        "0.125",
    )
    run_python(tiny, video, tmp_path / "theirs", rle=True, probabilities=True, threshold=0.125)
    compare(tmp_path / "ours", tmp_path / "theirs")
    for name in sorted(path.name for path in (tmp_path / "theirs" / "probabilities").iterdir()):
        maps = [np.asarray(Image.open(tmp_path / side / "probabilities" / name), int) for side in ("ours", "theirs")]
        assert np.abs(maps[0] - maps[1]).max() <= 2
    cocos = [json.loads((tmp_path / side / "masks.coco.json").read_text()) for side in ("ours", "theirs")]
    assert cocos[0]["images"] == cocos[1]["images"] and cocos[0]["categories"] == cocos[1]["categories"]
    assert [one["image_id"] for one in cocos[0]["annotations"]] == [one["image_id"] for one in cocos[1]["annotations"]]
    assert cocos[0]["annotations"]


SHAPES: dict[str, dict[str, Any]] = {
    "film rate": {"times": steady(Fraction(24000, 1001), 80), "rate": Fraction(24000, 1001)},
    "variable": {"times": [Fraction(n * n, 37) for n in range(14)], "rate": 25},
    "sound late": {"times": steady(25, 90), "sound_start": Fraction(3, 2)},
    "stereo": {"times": steady(10, 33), "sound": tone(3.3, 2), "layout": "stereo"},
    "odd size": {"times": steady(5, 17), "size": (66, 38)},
    "one frame": {"times": [Fraction(0)], "sound": tone(0.5)},
}


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("name", SHAPES)
def test_seconds_and_sound_are_those_of_python(
    tiny: Bundle, program: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    options = {"sound": tone(4.0), **SHAPES[name]}
    video = write_video(tmp_path / f"video{suffix}", **options)
    run(program, tiny.path, video, "-o", tmp_path / "ours", "--no-overlay")
    run_python(tiny, video, tmp_path / "theirs")
    compare(tmp_path / "ours", tmp_path / "theirs", share=0.0)
    loud = [json.loads(line)["highest_probability"] for line in (tmp_path / "ours" / "frames.jsonl").open()]
    expected = [json.loads(line)["highest_probability"] for line in (tmp_path / "theirs" / "frames.jsonl").open()]
    # The loudest sample of each second, so that one that is resampled otherwise shows.
    np.testing.assert_allclose(loud, expected, atol=2e-3)


@pytest.mark.parametrize("size", [(64, 48), (67, 41)])
def test_the_overlay_is_that_of_python(tiny: Bundle, program: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    """Encoders of two versions round in their own ways; frames, times, sound and tint are the same."""
    format_of = "yuv420p" if size == (64, 48) else "yuv444p"
    video = write_video(
        tmp_path / "a.mkv", times=steady(10, 33), sound=tone(3.3, 2), layout="stereo", size=size, pixel_format=format_of
    )
    run(program, tiny.path, video, "-o", tmp_path / "ours")
    with create("onnxruntime", tiny) as backend:
        segment_video(ClipSegmenter(backend, "onnxruntime"), video, tmp_path / "theirs", Options())
    found, expected = (decode(tmp_path / side / "overlay.mp4") for side in ("ours", "theirs"))
    assert found[0] == expected[0]
    assert found[2] == pytest.approx(expected[2], abs=0.05)  # seconds of sound
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 3
    tinted = [frame for frame in expected[1] if np.ptp(frame.mean(axis=(0, 1))) > 20]
    assert tinted and len(tinted) < len(expected[1])


def decode(path: Path) -> tuple[list[float], list[np.ndarray], float]:
    """Times and pixels of the frames, and the seconds of sound."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    return [time for time, _ in frames], [pixels for _, pixels in frames], samples / 48000


@pytest.mark.parametrize("source", ["rtsp://127.0.0.1/camera", "v4l2:/dev/video0", "/dev/video0", "lavfi:testsrc2"])
def test_a_live_source_is_refused_by_its_name(tiny: Bundle, program: Path, tmp_path: Path, source: str) -> None:
    refused = run(program, tiny.path, source, "-o", tmp_path / "out", expect=1)
    assert f"{source} is a live source" in refused.stderr and not (tmp_path / "out").exists()


def test_what_is_finished_is_not_done_again(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    (tmp_path / "videos" / "more").mkdir(parents=True)
    write_video(tmp_path / "videos" / "a.mkv", times=steady(5, 10), sound=tone(2))
    write_video(tmp_path / "videos" / "more" / "b.mp4", times=steady(5, 10), sound=tone(2))
    (tmp_path / "videos" / "c.mp4").write_bytes(b"no video")
    arguments = (tiny.path, tmp_path / "videos", "-o", tmp_path / "out", "--no-overlay")
    done = run(program, *arguments, expect=1)
    assert "c.mp4 cannot be read as a video" in done.stderr and "1 of 3 videos failed" in done.stderr
    states = {
        Path(one["video"]).name: one["state"] for one in json.loads((tmp_path / "out" / "batch.json").read_text())
    }
    assert states == {"a.mkv": "done", "b.mp4": "done", "c.mp4": "failed"}
    assert (tmp_path / "out" / "more" / "b.mp4" / "summary.json").is_file()
    run(program, *arguments, expect=1)
    states = {
        Path(one["video"]).name: one["state"] for one in json.loads((tmp_path / "out" / "batch.json").read_text())
    }
    assert states == {"a.mkv": "finished before", "b.mp4": "finished before", "c.mp4": "failed"}
    refused = run(program, *arguments, "--threshold", "0.25", expect=1)
    assert "is of another video, another bundle or other options" in refused.stderr
    run(program, *arguments, "--threshold", "0.25", "--overwrite", expect=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mkv", "batch.json", "more"]


def test_an_output_may_end_with_a_slash(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", times=steady(5, 10), sound=tone(2))
    for _ in range(2):
        run(program, tiny.path, video, "-o", f"{tmp_path}/out/", "--no-overlay", "--overwrite")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "out"]
        assert (tmp_path / "out" / "summary.json").is_file()


def test_a_batch_of_no_video_that_can_be_read_is_reported(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "videos" / name).write_bytes(b"no video")
    done = run(program, tiny.path, tmp_path / "videos", "-o", tmp_path / "out", expect=1)
    assert "2 of 2 videos failed" in done.stderr
    assert len(json.loads((tmp_path / "out" / "batch.json").read_text())) == 2


def test_a_full_disk_is_an_error_wherever_it_fills(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    """On file systems of each size up to the one that holds the output."""
    video, disk = write_video(tmp_path / "a.mkv", times=steady(5, 20), sound=tone(4)), tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk, and not everywhere")
    command = [program, tiny.path, video, "-o", disk / "out", "--no-overlay", "--rle"]
    command += ["--runtime-library", libavsbg.onnxruntime_library()]
    statuses = []
    try:
        for pages in range(4, 20):
            subprocess.run(["mount", "-o", f"remount,size={4 * pages}k", disk], check=True)
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
            statuses.append(done.returncode)
            if done.returncode == 0:
                break
            assert "cannot be written" in done.stderr and not list(disk.iterdir()), done.stderr
        assert json.loads((disk / "out" / "summary.json").read_text())["seconds"] == 4
        assert len((disk / "out" / "frames.jsonl").read_text().splitlines()) == 4
        assert len(json.loads((disk / "out" / "masks.coco.json").read_text())["images"]) == 4
    finally:
        subprocess.run(["umount", disk], check=True)
    assert len(statuses) > 3 and statuses[-1] == 0


def test_verify_prints_the_largest_differences(tiny: Bundle, program: Path) -> None:
    told = run(program, "verify", tiny.path, "--backend", "onnxruntime:native").stdout.splitlines()
    assert told[1].split() == ["clips", "output", "largest", "relative", "flips", "mIoU"]
    assert [line.split()[:2] for line in told[2:6]] == [[n, o] for n in "13" for o in ("logits", "probability")]
    assert told[-1] == "onnxruntime:native: pass"
    assert "FAIL" in run(program, "verify", tiny.path, "--tolerance", "0", expect=1).stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--nothing"], 2, "there is no option --nothing"),
        (["--threshold", "1"], 2, "--threshold must lie in"),
        (["--threads", "0"], 2, "--threads takes a whole number from 1 on, not '0'"),
        (["--masks", "gif"], 2, "--masks is one of png, none, not 'gif'"),
        (["--backend", "onnxruntime", "--precision", "fp16"], 1, "has no graph 'clip.fp16'"),
        (["--mode=stream"], 1, "has no graphs for streams"),
        (["--audio-track", "3"], 1, "has no audio track 3"),
    ],
)
def test_what_cannot_be_done_is_an_error_that_says_why(
    tiny: Bundle, program: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    video = write_video(tmp_path / "a.mkv", times=steady(5, 5), sound=tone(1))
    done = run(program, tiny.path, video, "-o", tmp_path / "out", *arguments, expect=status)
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_root_without_python_gives_masks(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    """Two commands, in a root that holds the program, what it links, ONNX Runtime's library, a bundle and a video."""
    if os.geteuid() != 0:
        pytest.skip("only root may change the root folder")
    root = tmp_path / "root"
    library = libavsbg.onnxruntime_library()
    copies = {program: "avsbg/bin/avsbg-run", library: "avsbg/lib/libonnxruntime.so.1"}
    copies |= {path: f"avsbg/lib/{path.name}" for path in (program.parents[1] / "lib").glob("*.so*")}
    for path in list(copies):
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.split()
        copies |= {
            Path(one): one.lstrip("/") for one in linked if one.startswith("/") and "avsbg" not in Path(one).name
        }
    for path, place in copies.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path.resolve(), root / place)
    shutil.copytree(tiny.path, root / "bundle")
    write_video(root / "video.mp4", times=steady(10, 40), sound=tone(4))
    assert not list(root.rglob("*python*"))
    for arguments in (["verify", "/bundle"], ["/bundle", "/video.mp4", "-o", "/masks", "--no-overlay"]):
        command = [
            "/usr/sbin/chroot",
            root,
            "/avsbg/bin/avsbg-run",
            *arguments,
            "--runtime-library",
            "libonnxruntime.so.1",
        ]
        done = subprocess.run(
            [
                *command,
            ],
            capture_output=True,
            text=True,
            check=False,
            env={"LD_LIBRARY_PATH": "/avsbg/lib"},
        )
        assert done.returncode == 0, done.stderr
    assert len(list((root / "masks" / "masks").iterdir())) == 4
    run_python(tiny, root / "video.mp4", tmp_path / "theirs")
    compare(root / "masks", tmp_path / "theirs", share=0.0)
