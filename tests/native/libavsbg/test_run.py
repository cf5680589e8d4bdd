"""avsbg-run against `avsbg run`: the same videos, the same files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.runtime.bundle import Bundle
from fixtures import libavsbg
from fixtures.class_bundle import make_class_bundle
from fixtures.cli import run_avsbg
from fixtures.native_run import compare, decode, run, run_python
from fixtures.odd_videos import burst, damage_packets, remux, serve, write_marked
from fixtures.telemetry import written_by
from fixtures.videos import real_video, steady, tone, write_video
from tools.native_runtime import run_once, stripped_sizes

pytestmark = pytest.mark.native


def test_a_real_video_gives_the_files_of_python(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    video = real_video()
    arguments = ["--no-overlay", "--rle", "--probabilities", "--threshold", "0.125"]
    run(program, tiny.path, video, "-o", tmp_path / "ours", *arguments)
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
    run_python(tiny, video, tmp_path / "theirs", overlay=True)
    compare(tmp_path / "ours", tmp_path / "theirs")
    found, expected = (decode(tmp_path / side / "overlay.mp4") for side in ("ours", "theirs"))
    assert found[0] == expected[0]
    assert found[2] == pytest.approx(expected[2], abs=0.05)  # seconds of sound
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 3
    tinted = [frame for frame in expected[1] if np.ptp(frame.mean(axis=(0, 1))) > 20]
    assert tinted and len(tinted) < len(expected[1])


# Arguments of the command, and the same as options in Python.
RATES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "three": (["--rate", "3", "--rle"], {"rate": 3, "rle": True}),
    "three as video": (["--rate=3", "--masks", "video"], {"rate": 3, "masks": "video"}),
    "every frame": (["--rate", "every-frame", "--no-overlay"], {"rate": "every-frame", "overlay": False}),
    "interpolated": (
        ["--rate", "2", "--interpolate", "--masks", "video"],
        {"rate": 2, "interpolate": True, "masks": "video"},
    ),
    "interpolated at one": (["--interpolate", "--no-sound"], {"interpolate": True, "silent": True}),
    "video": (["--masks", "video", "--no-overlay"], {"masks": "video", "overlay": False}),
}


@pytest.mark.parametrize("name", RATES)
def test_masks_at_other_rates_are_those_of_python(tiny: Bundle, program: Path, tmp_path: Path, name: str) -> None:
    arguments, options = RATES[name]
    quiet = np.concatenate([tone(2.2), tone(2.5, amplitude=0.1)], axis=1)
    video = write_video(tmp_path / "a.mkv", times=steady(10, 47), sound=quiet, size=(66, 38))
    run(program, tiny.path, video, "-o", tmp_path / "ours", *arguments)
    run_python(tiny, video, tmp_path / "theirs", **{"overlay": True, **options})
    compare(tmp_path / "ours", tmp_path / "theirs", share=0.0)
    if options.get("overlay", True):
        found, expected = (decode(tmp_path / side / "overlay.mp4") for side in ("ours", "theirs"))
        assert found[0] == expected[0]
        apart = [np.abs(one.astype(int) - other).mean() for one, other in zip(found[1], expected[1], strict=True)]
        assert max(apart) < 3


def test_a_stream_gives_the_masks_of_python_at_any_rate(tiny_stream: Bundle, program: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", times=steady(10, 75), sound=tone(7.5))
    for rate in (1, 2):
        ours, theirs = tmp_path / f"ours{rate}", tmp_path / f"theirs{rate}"
        arguments = ["--mode", "stream", "--rate", str(rate), "--no-overlay", "--probabilities"]
        run(program, tiny_stream.path, video, "-o", ours, *arguments)
        run_python(tiny_stream, video, theirs, stream=True, rate=rate, probabilities=True)
        compare(ours, theirs, share=0.0)


def test_the_rate_may_be_left_to_the_machine(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    """Files do not depend on it; a network as small as this makes several masks a second for the overlay."""
    video = write_video(tmp_path / "a.mkv", times=steady(10, 30), sound=tone(3))
    run(program, tiny.path, video, "-o", tmp_path / "ours", "--rate", "auto")
    summary = json.loads((tmp_path / "ours" / "summary.json").read_text())
    assert (summary["seconds"], summary["rate"]["asked"]) == (3, "auto")
    assert summary["masks"] > 3 and summary["rate"]["masks"] > 1 and summary["rate"]["seconds_per_mask"] > 0
    assert sorted(path.name for path in (tmp_path / "ours" / "masks").iterdir()) == [f"0000{n}.png" for n in range(3)]


def test_frames_decoded_on_hardware_are_those_of_software(
    tiny: Bundle, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is a fake: its frames are the ones used, and each of its errors is told."""
    flags = subprocess.run(["pkg-config", "--cflags", "libavcodec"], capture_output=True, text=True, check=True).stdout
    source, library = Path(__file__).with_name("fake_hwaccel.c"), tmp_path / "libfake.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", source, "-o", library, *flags.split()], check=True)
    video = write_video(tmp_path / "a.mkv", times=steady(10, 30), sound=tone(3))
    run(program, tiny.path, video, "-o", tmp_path / "software")
    log = tmp_path / "frames"
    monkeypatch.setenv("FAKE_HWACCEL_FRAMES", str(log))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    run(program, tiny.path, video, "-o", tmp_path / "hardware", "--hwaccel", "vaapi:1")
    assert len(log.read_text()) == 60  # of the network's reader and the overlay's
    summaries = {side: json.loads((tmp_path / side / "summary.json").read_text()) for side in ("software", "hardware")}
    assert "hwaccel" not in summaries["software"]["settings"]
    assert summaries["hardware"]["settings"].pop("hwaccel") == "vaapi:1"
    masks = sorted(path.relative_to(tmp_path / "software") for path in (tmp_path / "software" / "masks").iterdir())
    for name in [*masks, Path("overlay.mp4")]:
        assert (tmp_path / "hardware" / name).read_bytes() == (tmp_path / "software" / name).read_bytes()
    live = ["--hwaccel", "vaapi", "--duration", "2", "--no-sound"]
    with serve(tmp_path) as address:
        run(program, tiny.path, f"{address}/a.mkv", "-o", tmp_path / "live", *live)
    assert len(log.read_text()) > 60 + 20
    mpeg = write_marked(tmp_path / "b.mkv", seconds=1, codec="mpeg4")
    for path, kind, message in (
        (video, "vaapi:99", "the device of vaapi:99 cannot be opened: No such device. Leave out --hwaccel"),
        (video, "vdpau", "no decoder of vdpau can decode this h264, its profile or its size. Leave out --hwaccel"),
        (mpeg, "vaapi", "no decoder of vaapi can decode mpeg4, the codec of the video track. Leave out --hwaccel"),
    ):
        assert message in run(program, tiny.path, path, "-o", tmp_path / "none", "--hwaccel", kind, expect=1).stderr
        assert not (tmp_path / "none").exists()


def test_no_kind_of_hardware_decodes_in_software_instead(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", times=steady(5, 5), sound=tone(1))
    arguments = [tiny.path, video, "-o", tmp_path / "out", "--hwaccel"]
    told = run(program, *arguments, "warp:1", expect=1).stderr
    assert "has no hardware decoders of the kind 'warp'. It has: " in told
    for kind in told.split("It has: ")[1].split(". ")[0].split(", "):
        assert f"{kind}:99 can" in run(program, *arguments, f"{kind}:99", expect=1).stderr  # no machine has that many


def test_masks_of_classes_are_those_of_python(program: Path, tmp_path: Path) -> None:
    bundle = make_class_bundle(tmp_path / "bundle")
    video = write_video(tmp_path / "v.mp4", times=steady(25, 75), sound=tone(3))
    run(program, bundle.path, video, "-o", tmp_path / "ours", "--rle")
    run_python(bundle, video, tmp_path / "theirs", rle=True, overlay=True)
    compare(tmp_path / "ours", tmp_path / "theirs", share=0.0)
    sheets = [np.asarray(Image.open(tmp_path / side / "overlay.png"), int) for side in ("ours", "theirs")]
    assert sheets[0].shape == sheets[1].shape
    assert np.abs(sheets[0] - sheets[1]).mean() < 2  # the legend is the same to the pixel, the outline of the time not
    frames = [decode(tmp_path / side / "overlay.mp4")[1] for side in ("ours", "theirs")]
    assert max(np.abs(one.astype(int) - other).mean() for one, other in zip(*frames, strict=True)) < 3
    refused = run(program, bundle.path, video, "-o", tmp_path / "no", "--threshold", "0.25", expect=1)
    assert "decides between 4 classes" in refused.stderr


def test_clocks_that_start_anew_are_joined_as_in_python(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    first = write_marked(tmp_path / "a.ts", seconds=3)
    later = remux(first, tmp_path / "b.ts", shift=lambda *_: 100.0)
    (tmp_path / "c.ts").write_bytes(first.read_bytes() + later.read_bytes() + first.read_bytes())
    run(program, tiny.path, tmp_path / "c.ts", "-o", tmp_path / "ours")
    assert run_python(tiny, tmp_path / "c.ts", tmp_path / "theirs", overlay=True)["video"]["clock_steps"] == 2
    compare(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize(("kind", "packet"), [("audio", 20), ("video", 30)])
def test_what_is_damaged_is_passed_over_and_counted_as_in_python(
    tiny: Bundle, program: Path, tmp_path: Path, kind: str, packet: int
) -> None:
    path = write_marked(tmp_path / "v.avi", seconds=2, codec="mpeg4", audio="mp2", sounds=[burst(2)])
    damage_packets(path, kind, [packet])
    run(program, tiny.path, path, "-o", tmp_path / "ours", "--skip-damaged")
    summary = run_python(tiny, path, tmp_path / "theirs", skip_damaged=True, overlay=True)
    compare(tmp_path / "ours", tmp_path / "theirs")
    if kind == "audio":
        assert summary["video"]["damaged"]["audio"] == 1
        refused = run(program, tiny.path, path, "-o", tmp_path / "no", expect=1)
        assert "the sound of" in refused.stderr and "--skip-damaged passes over" in refused.stderr
        run(program, tiny.path, path, "-o", tmp_path / "silent", "--no-sound")


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


def test_a_batch_of_which_every_video_fails_is_reported_with_hints(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    write_video(tmp_path / "videos" / "b.mkv", times=steady(5, 10), sound=np.full((1, 96000), np.nan, np.float32))
    done = run(program, tiny.path, tmp_path / "videos", "-o", tmp_path / "out", "--no-overlay", expect=1)
    assert "2 of 2 videos failed" in done.stderr
    told = [one["error"] for one in json.loads((tmp_path / "out" / "batch.json").read_text())]
    assert "cannot be read as a video" in told[0] and "of a kind that FFmpeg does not know." in told[0]
    assert told[1] == "sound holds NaN or infinity. Check the device or the decoder that it comes from."
    assert all(f"error: {one}\n" in done.stderr for one in told)


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
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, check=False, timeout=libavsbg.TIMEOUT
            )
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


def test_onnxruntime_reports_nothing(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    library = ["--backend", "onnxruntime", "--runtime-library", libavsbg.onnxruntime_library()]
    assert written_by([program, "verify", tiny.path, *library], tmp_path) == []


def test_auto_takes_what_can_run_and_records_why(
    tiny: Bundle, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reasons are those of Python, for what both have; where there is a driver, they are each backend's own."""
    monkeypatch.delenv("AVSBG_BACKEND")
    video = write_video(tmp_path / "a.mkv", times=steady(5, 5), sound=tone(1))
    done = run(program, tiny.path, video, "-o", tmp_path / "native")
    assert done.stderr.startswith("auto took onnxruntime:native, the only one that can run here. Passed over: ")
    assert " on auto (onnxruntime:native) in " in done.stdout
    assert run_avsbg("run", tiny.path, video, "-o", tmp_path / "python", "--backend", "auto").code == 0
    native, python = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("native", "python"))
    assert native["settings"]["target"] == python["settings"]["target"] == "auto"
    assert native["selection"]["backend"] == "onnxruntime:native" and native["backend"]["operator"] == "native"
    assert native["selection"].keys() == python["selection"].keys()
    assert native["selection"]["passed_over"].items() <= python["selection"]["passed_over"].items()
    driver = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-x", "c", "/dev/null", "-o", driver], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    told = run(program, "verify", tiny.path, "--backend", "auto").stderr
    assert told.startswith("auto took onnxruntime:native, by the time of one clip (measured): onnxruntime:native ")
    assert "tensorrt, tensorrt-rtx (the bundle holds no engine of it)" in told and "libcuda.so.1" not in told
    assert "onnxruntime-cuda:native" in told and told.count(" ms") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--nothing"], 2, "there is no option --nothing"),
        (["--threshold", "1"], 2, "--threshold must lie in"),
        (["--hwaccel", ""], 2, "--hwaccel takes a kind of hardware decoders"),
        (["--threads", "0"], 2, "--threads takes a whole number from 1 on, not '0'"),
        (["--masks", "gif"], 2, "--masks is one of png, video, none, not 'gif'"),
        (["--rate", "0"], 2, "'0' is no rate of masks"),
        (["--rate", "every-frame", "--interpolate"], 2, "nothing lies between masks"),
        (["--interpolate", "--no-overlay"], 2, "keep the overlay"),
        (["--backend", "openvino"], 2, "avsbg-run has no backend openvino"),
        (["--backend", "auto", "--device", "cuda"], 1, "no backend can run"),
        (["--backend", "auto:fp16"], 1, "has no graph 'clip.fp16'"),
        (["--device", "cuda:1"], 2, "the backend onnxruntime runs on the processor, not on cuda:1"),
        (["--duration", "3"], 1, "--duration is for live sources"),
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
    segment = ["/bundle", "/video.mp4", "-o", "/masks", "--no-overlay", "--backend", "onnxruntime"]
    for arguments in (["verify", "/bundle"], segment):
        command = ["/usr/sbin/chroot", root, "/avsbg/bin/avsbg-run", *arguments]
        done = subprocess.run(
            [*command, "--rate", "1", "--runtime-library", "libonnxruntime.so.1"],
            capture_output=True, text=True, check=False, timeout=libavsbg.TIMEOUT,
            env={"LD_LIBRARY_PATH": "/avsbg/lib"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert len(list((root / "masks" / "masks").iterdir())) == 4
    run_python(tiny, root / "video.mp4", tmp_path / "theirs")
    compare(root / "masks", tmp_path / "theirs", share=0.0)


def test_a_program_is_watched_until_its_first_mask(tiny: Bundle, program: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", times=steady(5, 10), sound=tone(2))
    words = [str(program), str(tiny.path), str(video), "--runtime-library", str(libavsbg.onnxruntime_library())]
    ran = run_once(words, 3)
    assert ran.first_mask > ran.shared > 0 and ran.peak > 2**20
    with pytest.raises(BenchmarkError, match="the video has 2 masks"):
        run_once(words, 1)
    sizes = stripped_sizes(program.parents[1])
    assert sizes.keys() == {"libavsbg.so.1", "libavsbg_backend_onnxruntime.so", "avsbg-run"}
    assert all(2**13 < size < 2**24 for size in sizes.values())
