"""Live sources, played by FFmpeg's generators and by servers on this machine's loopback."""

from __future__ import annotations

import functools
import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media import live
from avsbg.runtime.media.container import probe
from avsbg.runtime.media.sources import LiveSource, parse_source
from avsbg.runtime.segment.pipeline import AHEAD, Options
from avsbg.runtime.segment.run import segment_live, segment_video
from avsbg.runtime.segment.segmenter import ClipSegmenter, InterleavedSegmenter
from fixtures.rtsp import serve_rtsp
from fixtures.videos import steady, tone, write_video

WHITE = "color=white:size=64x48:rate=10"
# Loud for four seconds, then silent.
LOUD = r"aevalsrc=0.9*sin(2*PI*440*t)*lt(t\,4):s=44100:c=mono"
BOTH = f"lavfi:{WHITE}[out0];{LOUD}[out1]"


def source(text: str) -> LiveSource:
    parsed = parse_source(text)
    assert isinstance(parsed, LiveSource)
    return parsed


def run(
    bundle: Bundle, text: str, output: Path, options: Options | None = None, **call: Any
) -> tuple[dict[str, Any], MediaError | None]:
    with create("onnxruntime", bundle) as backend:
        call.setdefault("stop", threading.Event())
        return segment_live(ClipSegmenter(backend), source(text), output, options or Options(masks="none"), **call)


def sounding(output: Path) -> list[bool]:
    return [json.loads(line)["mask_area"] > 0.5 for line in (output / "frames.jsonl").read_text().splitlines()]


def test_sources_by_name() -> None:
    assert parse_source("a/b.mp4") == Path("a/b.mp4")
    assert parse_source("c:video.mp4") == Path("c:video.mp4")
    with pytest.raises(MediaError, match="a source is empty"):
        parse_source("")
    camera = source("v4l2:/dev/video0?video_size=640x480&framerate=30")
    assert (camera.device, camera.address) == ("v4l2", "/dev/video0")
    assert camera.options == {"video_size": "640x480", "framerate": "30"}
    assert source("/dev/video2").device == "v4l2"
    assert source("alsa:hw:1,0").address == "hw:1,0"
    assert source("rtsp://camera/1?a=b") == LiveSource("rtsp://camera/1?a=b", "rtsp://camera/1?a=b", None)
    assert not source("udp://127.0.0.1:5000").waits
    assert source("http://127.0.0.1/v.ts").waits
    for text, message in (
        ("file:///etc/passwd", "no address"),
        ("concat://a", "no address"),
        ("v4l2:x?y", "NAME=VALUE"),
    ):
        with pytest.raises(MediaError, match=message):
            parse_source(text)


def test_the_wheel_has_the_devices() -> None:
    """FFmpeg's device library differs between builds; what we name must be there."""
    for device in live_devices():
        assert av.format.ContainerFormat(device).is_input


def live_devices() -> list[str]:
    from avsbg.runtime.media.sources import DEVICES

    return list(DEVICES)


def test_picture_and_sound_stay_together(tiny: Bundle, tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []
    summary, failure = run(
        tiny, BOTH, tmp_path / "out", duration=7, progress=lambda stage, done, _: calls.append((stage, done))
    )
    assert failure is None
    assert sounding(tmp_path / "out") == [True] * 4 + [False] * 3
    assert summary["video"]["live"] == {
        "ended": "by itself", "policy": "block", "microphone": None, "damaged": 0, "late_sound": 0,
    }  # fmt: skip
    assert (summary["dropped_seconds"], summary["seconds"]) == (0, 7)
    made = probe(tmp_path / "out/overlay.mp4")
    assert (made.width, made.height, made.has_audio) == (64, 48, True)
    assert made.duration is not None
    assert 6.9 <= made.duration <= 8
    with av.open(str(tmp_path / "out/overlay.mp4")) as container:
        colours = [frame.to_ndarray(format="rgb24")[24, 32].astype(int) for frame in container.decode(video=0)]
    tinted = [colour[0] - colour[2] > 50 for colour in colours]
    assert tinted[:70] == [True] * 40 + [False] * 30


@pytest.mark.parametrize("paced", [False, True])
def test_a_camera_and_a_microphone(tiny: Bundle, tmp_path: Path, paced: bool) -> None:
    """As fast as they can, in the order of their time stamps; and at their own pace, as devices are read."""
    camera, microphone = source(f"lavfi:{WHITE}"), source(f"lavfi:{LOUD}")
    if paced:
        camera = replace(source(f"lavfi:{WHITE},realtime=speed=6"), waits=False)
        microphone = replace(source(f"lavfi:{LOUD},arealtime=speed=6"), waits=False)
    with create("onnxruntime", tiny) as backend:
        segment_live(
            ClipSegmenter(backend), camera, tmp_path / "out", Options(masks="none"),
            stop=threading.Event(), microphone=microphone, duration=6, policy="block",
        )  # fmt: skip
    assert sounding(tmp_path / "out") == [True] * 4 + [False] * 2
    assert probe(tmp_path / "out/overlay.mp4").has_audio


def test_no_sound_needs_silent_or_a_microphone(tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"no sound.*--microphone"):
        run(tiny, f"lavfi:{WHITE}", tmp_path / "out")
    with pytest.raises(MediaError, match="gives no sound"):
        run(tiny, f"lavfi:{WHITE}", tmp_path / "out", microphone=source(f"lavfi:{WHITE}"))
    with pytest.raises(MediaError, match="no video track"):
        run(tiny, f"lavfi:{LOUD}", tmp_path / "out")
    assert not list(tmp_path.iterdir())
    summary, _ = run(tiny, f"lavfi:{WHITE}", tmp_path / "out", Options(silent=True, masks="none"), duration=2)
    assert summary["sounding_seconds"] == 0


def test_what_cannot_be_opened(tiny: Bundle, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for text in ("v4l2:/dev/video99", f"http://127.0.0.1:{port}/v.ts", "lavfi:nonsense"):
        with pytest.raises(MediaError, match="cannot be opened") as caught:
            run(tiny, text, tmp_path / "out")
        assert text in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_stopping_keeps_what_had_come(tiny: Bundle, tmp_path: Path) -> None:
    stop = threading.Event()

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage == "segmenting" and done == 12:
            stop.set()

    summary, failure = run(tiny, BOTH, tmp_path / "out", stop=stop, progress=progress)
    assert failure is None
    assert summary["video"]["live"]["ended"] == "stopped"
    assert 12 <= summary["seconds"] < 60
    assert len(sounding(tmp_path / "out")) == summary["seconds"]
    assert probe(tmp_path / "out/overlay.mp4").duration is not None


def test_a_device_that_vanishes(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = live._open

    class Vanishing:
        """A container whose device is unplugged after so many packets."""

        def __init__(self, container: Any, packets: int) -> None:
            self._container, self._packets = container, packets

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def __enter__(self) -> Vanishing:
            return self

        def __exit__(self, *_: object) -> None:
            self._container.close()

        def demux(self, *tracks: Any) -> Iterator[Any]:
            for count, packet in enumerate(self._container.demux(*tracks)):
                if count == self._packets:
                    raise av.OSError(19, "No such device")
                yield packet

    monkeypatch.setattr(live, "_open", lambda *given: Vanishing(original(*given), 120))
    summary, failure = run(tiny, f"lavfi:{WHITE}[out0];{LOUD}[out1]", tmp_path / "out")
    assert failure is not None
    assert "No such device" in str(failure)
    assert "No such device" in summary["video"]["live"]["ended"]
    assert summary["seconds"] == len(sounding(tmp_path / "out")) >= 1
    # One that vanishes before a second has come leaves nothing.
    monkeypatch.setattr(live, "_open", lambda *given: Vanishing(original(*given), 0))
    with pytest.raises(MediaError, match="No such device"):
        run(tiny, BOTH, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    # The microphone alone.
    monkeypatch.setattr(
        live,
        "_open",
        lambda each, *given: Vanishing(original(each, *given), 120 if "aevalsrc" in each.name else 10**9),
    )
    _, failure = run(tiny, f"lavfi:{WHITE}", tmp_path / "microphone", microphone=source(f"lavfi:{LOUD}"))
    assert failure is not None
    assert "No such device" in str(failure)


class _Slow(ClipSegmenter):
    """A network that takes its time."""

    delay = 0.02  # seconds

    def push(self, second: Any) -> Any:
        time.sleep(self.delay)
        return super().push(second)


@pytest.mark.parametrize("drop", [True, False])
def test_a_source_faster_than_the_network(tiny: Bundle, tmp_path: Path, drop: bool) -> None:
    with create("onnxruntime", tiny) as backend:
        slow = _Slow(backend)
        if drop:
            slow.delay = 0.5  # a busy machine makes the source slow, too
        summary, _ = segment_live(
            slow, source(BOTH), tmp_path / "out", Options(masks="none", overlay=False),
            stop=threading.Event(), duration=60, policy="drop-oldest" if drop else "block",
        )  # fmt: skip
    assert summary["seconds"] + summary["dropped_seconds"] == 60
    assert (summary["dropped_seconds"] > 0) == drop
    assert max(summary["most_waiting"].values()) <= AHEAD
    assert summary["video"]["live"]["policy"] == ("drop-oldest" if drop else "block")


def test_at_several_masks_a_second_seconds_and_masks_that_were_dropped_are_told_apart(
    tiny: Bundle, tmp_path: Path
) -> None:
    class Slower(_Slow):
        delay = 0.5  # a busy machine makes the source slow, too

    with create("onnxruntime", tiny) as backend:
        summary, _ = segment_live(
            InterleavedSegmenter(lambda: Slower(backend)), source(BOTH), tmp_path / "out",
            Options(masks="none", overlay=False, rate=6),
            stop=threading.Event(), duration=30, policy="drop-oldest",
        )  # fmt: skip
    assert summary["seconds"] + summary["dropped_seconds"] == 30
    assert summary["masks"] + summary["masks_left_out"] == 6 * 30
    assert summary["dropped_seconds"] > 0


def test_of_samples_that_wait_for_their_sound_the_first_phase_alone_has_the_size_of_the_video(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: set[tuple[int, tuple[int, ...]]] = set()
    original = live._SampleAssembler._complete

    def keep(self: Any, now: Any) -> Any:
        waiting.update((place.phase, pixels.shape) for _, place, _, _, pixels in self._waiting)
        return original(self, now)

    monkeypatch.setattr(live._SampleAssembler, "_complete", keep)
    with live.LiveReader(source(BOTH), None, stop=threading.Event(), duration=3) as reader:
        samples = list(reader.samples(tiny.manifest, silent=False, packets=None, rate=Fraction(2)))
    clip = tiny.manifest.clip
    network = (clip.height, clip.width, 3)
    assert waiting == {(0, (48, 64, 3)), (1, network)}
    assert {(sample.phase, sample.pixels.shape) for sample in samples} == waiting
    assert {sample.frame.shape for sample in samples} == {network} != {(48, 64, 3)}


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serve a folder over HTTP on the loopback."""
    servers: list[http.server.HTTPServer] = []

    def start(folder: Path) -> str:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_http(tiny: Bundle, tmp_path: Path, serve: Callable[[Path], str]) -> None:
    """A video over the network gives the same masks as the file."""
    sound = np.concatenate([tone(3), np.zeros((1, 4 * 48000), np.float32)], axis=1)
    path = write_video(tmp_path / "v.ts", times=steady(50, 350), rate=50, sound=sound)
    _, failure = run(tiny, f"{serve(tmp_path)}/v.ts", tmp_path / "live")
    assert failure is None
    with create("onnxruntime", tiny) as backend:
        segment_video(ClipSegmenter(backend), path, tmp_path / "file", Options(masks="none"))
    assert sounding(tmp_path / "live") == sounding(tmp_path / "file") == [True] * 3 + [False] * 4


def test_rtsp_whose_first_frames_have_no_time_stamps(tiny: Bundle, tmp_path: Path) -> None:
    """A server tells its clock a moment after the first packets of picture and sound."""
    with serve_rtsp() as address:
        summary, failure = run(tiny, address, tmp_path / "out", Options(), duration=3)
    assert (failure, summary["seconds"], summary["dropped_seconds"]) == (None, 3, 0)
    assert summary["video"]["live"]["damaged"] == 0
    assert sounding(tmp_path / "out") == [True] * 3
    with av.open(str(tmp_path / "out" / "overlay.mp4")) as overlay:
        assert 25 <= sum(1 for _ in overlay.decode(video=0)) <= 35


@pytest.mark.parametrize("untimed", [3, 2000])
def test_a_source_without_time_stamps_is_an_error_and_one_that_has_them_later_is_not(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untimed: int
) -> None:
    def forget(reader: live.LiveReader, *arguments: Any) -> Iterator[Any]:
        for number, packet in enumerate(original(reader, *arguments)):
            if number < untimed:
                packet.pts = packet.dts = None
            yield packet

    original = live.LiveReader._demux
    monkeypatch.setattr(live.LiveReader, "_demux", forget)
    if untimed == 2000:
        with pytest.raises(MediaError, match="has no time stamps"):
            run(tiny, BOTH, tmp_path / "out", duration=2)
        assert not (tmp_path / "out").exists()
    else:
        summary, failure = run(tiny, BOTH, tmp_path / "out", duration=2)
        assert failure is None and summary["seconds"] == 2


def test_a_playlist_from_the_network_does_not_reach_files(
    tiny: Bundle, tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    path = write_video(tmp_path / "secret.ts", times=steady(25, 50), sound=tone(2))
    (tmp_path / "v.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{path}\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        run(tiny, f"{serve(tmp_path)}/v.m3u8", tmp_path / "out")


def test_udp_and_a_sender_that_falls_silent(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TIMEOUT", (10.0, 2.0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = write_video(tmp_path / "v.ts", times=steady(25, 100), sound=tone(4), encoder={"g": "5"})

    def send() -> None:
        """The file at four times its speed, once somebody listens."""
        deadline, tables = time.monotonic() + 60, [Path("/proc/net") / name for name in ("udp", "udp6")]
        while f":{port:04X} " not in "".join(map(Path.read_text, tables)) and time.monotonic() < deadline:
            time.sleep(0.02)
        content = path.read_bytes()
        packets = [content[start : start + 1316] for start in range(0, len(content), 1316)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in packets:
                sender.sendto(packet, ("127.0.0.1", port))
                time.sleep(1.0 / len(packets))

    sender = threading.Thread(target=send)
    sender.start()
    summary, failure = run(tiny, f"udp://127.0.0.1:{port}", tmp_path / "out")
    sender.join()
    assert failure is not None
    assert f"udp://127.0.0.1:{port} stopped" in str(failure)
    assert summary["seconds"] >= 2
    assert len(sounding(tmp_path / "out")) == summary["seconds"]
    assert probe(tmp_path / "out/overlay.mp4").has_audio


def test_time_stamps_that_jump_are_a_source_that_began_anew(tiny: Bundle, tmp_path: Path) -> None:
    jump = f"lavfi:{WHITE},setpts='if(gte(N\\,50)\\,PTS+4000/TB\\,PTS)'"
    summary, failure = run(tiny, jump, tmp_path / "out", Options(silent=True, masks="none"))
    assert failure is not None
    assert "time stamps" in str(failure)
    assert summary["seconds"] >= 4


def test_sound_without_picture_is_not_collected_for_ever(tiny: Bundle, tmp_path: Path) -> None:
    stopped = f"lavfi:color=white:size=64x48:rate=10:duration=2[out0];{LOUD}[out1]"
    summary, failure = run(tiny, stopped, tmp_path / "out", Options(masks="none", overlay=False))
    assert failure is not None
    assert "no picture for 60 s" in str(failure)
    assert summary["seconds"] == 2


def test_packets_that_wait_are_few(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    original = live.Channel.put

    def put(self: Any, item: Any, *kind: str) -> None:
        nonlocal most
        original(self, item, *kind)
        if isinstance(item, av.Packet):
            most = max(most, len(self))

    monkeypatch.setattr(live.Channel, "put", put)
    run(tiny, BOTH, tmp_path / "out", duration=100)
    # 10 pictures and 43 pieces of sound a second; a clip of 5 s and what is ahead of and behind it.
    assert 0 < most < 54 * (5 + 5 * AHEAD)
