#!/usr/bin/env python3
"""Masks of what sounds, in a GStreamer pipeline: a camera's picture and a microphone's sound in, video or RTSP out.

    python3 sounding.py BUNDLE --picture "v4l2src" --sound "alsasrc" --rtsp 8554        # rtsp://HOST:8554/sounding
    python3 sounding.py BUNDLE --picture "uridecodebin uri=file:///video.mp4 name=u" --sound "u." --file out.mp4

Both sources belong to one pipeline, and so to one clock: time stamps place the sound of each picture. Every picture is
shown; `--rate` of them a second pass the network, in a thread of its own. A picture of a live stream gets the newest
mask that there is; in a file it waits for its own.

Needs Debian's python3-gst-1.0 and, for RTSP, gir1.2-gst-rtsp-server-1.0. The bundle was exported with --stream.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
import numpy as np
from gi.repository import GLib, Gst, GstApp  # noqa: F401  (GstApp gives appsrc and appsink their methods)
from PIL import Image

import avsbg
from avsbg.errors import AvsbgError
from avsbg.runtime.segment.overlay import tint
from avsbg.runtime.streaming.threaded import ThreadedStream

# One picture in, one out; H.264 that any player takes.
ENCODER = (
    "videoconvert ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! video/x-h264,profile=baseline"
)


class Masker:
    """Pictures and sound in, pictures with the newest mask out.

    `show` receives each finished picture, uint8 `[h, w, 3]`, with its time stamp in seconds; `fail` is called when the
    network fails. With `only_masks` the picture is the mask itself, white where it sounds. With `wait` a picture is
    shown when the mask of the last one before it that passed the network is there, else at once.
    """

    def __init__(self, live: ThreadedStream, rate: float, threshold: float, *, only_masks: bool, wait: bool) -> None:
        self._live, self._period, self._threshold, self._only_masks = live, 1 / rate, threshold, only_masks
        self._next = 0.0
        self._wait, self._lock = wait, threading.Lock()
        self._pushed: deque[float] = deque()  # times of pictures that passed the network
        self._pending: deque[tuple[np.ndarray, float]] = deque()
        self._probability: np.ndarray | None = None
        self.show: Callable[[np.ndarray, float], None] = lambda *_: None
        self.fail: Callable[[], object] = lambda: None
        self.masks = 0
        self.failure: AvsbgError | None = None
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def start(self) -> None:
        """Begin to collect masks."""
        self._thread.start()

    def finish(self) -> None:
        """Take the last masks; raises the `AvsbgError` that the network failed with."""
        self._live.finish()
        self._thread.join()
        self._show_before(math.inf)
        if self.failure is not None:
            raise self.failure

    def take_picture(self, pixels: np.ndarray, time: float) -> None:
        """Pass a picture on: to the network if its turn has come, and to `show` in any case."""
        if time >= self._next:
            self._next = max(self._next + self._period, time)
            with self._lock:
                self._pushed.append(time)
            self._live.push(pixels, timestamp=time)
        if self._wait:
            with self._lock:
                self._pending.append((pixels, time))
        else:
            self._show(pixels, time)

    def _show_before(self, time: float) -> None:
        """Show the waiting pictures that are older than `time`."""
        while self._pending and self._pending[0][1] < time:
            with self._lock:
                waiting = self._pending.popleft()
            self._show(*waiting)

    def _show(self, pixels: np.ndarray, time: float) -> None:
        mask = self._decide(pixels.shape[1], pixels.shape[0])
        shown = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2) if self._only_masks else tint(pixels, mask)
        self.show(shown, time)

    def take_sound(self, samples: np.ndarray, time: float) -> None:
        """Pass sound on, float32, mono, at the bundle's rate."""
        self._live.push_sound(samples, time)

    def _decide(self, width: int, height: int) -> np.ndarray:
        if self._probability is None:
            return np.zeros((height, width), bool)
        small = Image.fromarray((self._probability > self._threshold).astype(np.uint8))
        return np.asarray(small.resize((width, height), Image.Resampling.NEAREST)) > 0

    def _collect(self) -> None:
        try:
            for mask in self._live:
                self._show_before(mask.timestamp)
                self._probability = mask.probability
                self.masks += 1
                with self._lock:
                    while self._pushed and self._pushed[0] <= mask.timestamp:
                        self._pushed.popleft()
                    following = self._pushed[0] if self._pushed else math.inf
                self._show_before(following)
        except AvsbgError as error:
            self.failure = error
            self.fail()


class Output:
    """The encoded stream: an `appsrc` that takes pictures, in a file's pipeline or in an RTSP server's."""

    def __init__(self, size: tuple[int, int], rate: int) -> None:
        width, height = size
        self._caps = f"video/x-raw,format=RGB,width={width},height={height},framerate={rate}/1"
        self._source: Any = None
        self._start: float | None = None
        self._pipeline: Any = None

    def write_file(self, path: str) -> None:
        """Encode into an MP4 file."""
        source = f"appsrc name=out format=time block=true caps={self._caps}"
        self._pipeline = Gst.parse_launch(f"{source} ! {ENCODER} ! mp4mux ! filesink name=file")
        self._pipeline.get_by_name("file").set_property("location", path)
        self._source = self._pipeline.get_by_name("out")
        self._pipeline.set_state(Gst.State.PLAYING)

    def serve(self, port: int, host: str) -> int:
        """Serve rtsp://HOST:PORT/sounding to any number of clients; returns the port, chosen by the system if 0."""
        gi.require_version("GstRtspServer", "1.0")
        from gi.repository import GstRtspServer

        factory = GstRtspServer.RTSPMediaFactory()
        source = f"appsrc name=out is-live=true do-timestamp=true format=time caps={self._caps}"
        factory.set_launch(f"( {source} ! queue leaky=downstream ! {ENCODER} ! rtph264pay name=pay0 pt=96 )")
        factory.set_shared(True)
        factory.connect("media-configure", self._on_client)
        self._server = GstRtspServer.RTSPServer()
        self._server.set_service(str(port))
        self._server.set_address(host)
        self._server.get_mount_points().add_factory("/sounding", factory)
        if self._server.attach(None) == 0:
            raise SystemExit(f"error: port {port} of {host} cannot be opened; give another with --rtsp")
        return int(self._server.get_bound_port())

    def _on_client(self, _: Any, media: Any) -> None:
        self._source = media.get_element().get_by_name("out")

    def show(self, pixels: np.ndarray, time: float) -> None:
        """Hand over a picture; nobody takes it while no client is there."""
        source = self._source
        if source is None:
            return
        buffer = Gst.Buffer.new_wrapped(np.ascontiguousarray(pixels).tobytes())
        if self._pipeline is not None:  # a server's appsrc takes the time of its own clock
            self._start = time if self._start is None else self._start
            buffer.pts = round((time - self._start) * Gst.SECOND)
        source.emit("push-buffer", buffer)

    def finish(self) -> None:
        """Complete the file."""
        if self._pipeline is not None:
            self._source.emit("end-of-stream")
            self._pipeline.get_bus().timed_pop_filtered(30 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
            self._pipeline.set_state(Gst.State.NULL)


def read(sample: Any) -> tuple[np.ndarray, float]:
    """The bytes of a sample of an `appsink`, and its running time in seconds: one clock for picture and sound."""
    buffer = sample.get_buffer()
    time = sample.get_segment().to_running_time(Gst.Format.TIME, buffer.pts)
    return np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8), time / Gst.SECOND


def build_input(options: argparse.Namespace, masker: Masker, sample_rate: int) -> Any:
    """The pipeline that picture and sound come from, with a sink of ours at each end."""
    width, height = options.size
    picture = f"video/x-raw,format=RGB,width={width},height={height},framerate={options.fps}/1"
    sound = f"audio/x-raw,format=F32LE,channels=1,rate={sample_rate}"
    pipeline = Gst.parse_launch(
        f"{options.picture} ! queue ! videoconvert ! videoscale ! videorate ! {picture} ! appsink name=picture "
        f"{options.sound} ! queue ! audioconvert ! audioresample ! {sound} ! appsink name=sound"
    )

    def take_picture(sink: Any) -> Any:
        pixels, time = read(sink.emit("pull-sample"))
        rows = pixels.reshape(height, -1)[:, : width * 3]  # rows are padded to multiples of four bytes
        masker.take_picture(rows.reshape(height, width, 3), time)
        return Gst.FlowReturn.OK

    def take_sound(sink: Any) -> Any:
        samples, time = read(sink.emit("pull-sample"))
        masker.take_sound(samples.view(np.float32), time)
        return Gst.FlowReturn.OK

    for name, take in (("picture", take_picture), ("sound", take_sound)):
        sink = pipeline.get_by_name(name)
        # Live sources come by the clock anyway; a file passes as fast as it is taken.
        sink.set_property("emit-signals", True)
        sink.set_property("sync", False)
        sink.set_property("max-buffers", 4)
        sink.connect("new-sample", take)
    return pipeline


def run(options: argparse.Namespace) -> int:
    """Run the pipeline until its sources end or somebody interrupts it; returns the number of masks."""
    Gst.init(None)
    loop = GLib.MainLoop()
    problem: list[str] = []
    with avsbg.load(options.bundle, options.backend) as model, model.stream() as stream:
        policy = "block" if options.file else "drop-oldest"
        with ThreadedStream(stream, capacity=2, policy=policy) as live:
            masker = Masker(live, options.rate, options.threshold, only_masks=options.mask, wait=bool(options.file))
            output = Output(options.size, options.fps)
            masker.show, masker.fail = output.show, loop.quit
            if options.file:
                output.write_file(options.file)
            else:
                port = output.serve(options.rtsp, options.host)
                print(f"rtsp://{options.host}:{port}/sounding", flush=True)
            pipeline = build_input(options, masker, model.bundle.manifest.clip.sample_rate)

            def on_message(_: Any, message: Any) -> None:
                if message.type == Gst.MessageType.ERROR:
                    problem.append(message.parse_error()[0].message)
                if message.type in (Gst.MessageType.ERROR, Gst.MessageType.EOS):
                    loop.quit()

            bus = pipeline.get_bus()
            bus.add_signal_watch()
            bus.connect("message", on_message)
            masker.start()
            pipeline.set_state(Gst.State.PLAYING)
            with contextlib.suppress(KeyboardInterrupt):
                loop.run()
            pipeline.set_state(Gst.State.NULL)
            masker.finish()
            output.finish()
            if problem:
                raise SystemExit(f"error: GStreamer: {problem[0]}")
            return masker.masks


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--picture", default="v4l2src", help="where the picture comes from, as gst-launch-1.0 takes it")
    parser.add_argument("--sound", default="alsasrc", help="where the sound comes from")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--fps", type=int, default=25, help="pictures a second that are shown")
    parser.add_argument("--rate", type=float, default=1.0, help="pictures a second that pass the network")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--backend", default="auto", help="as of avsbg run")
    parser.add_argument("--mask", action="store_true", help="the mask in place of the picture with the mask in it")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to serve at; 0.0.0.0 is every one of this machine"
    )
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("--rtsp", type=int, metavar="PORT", help="serve rtsp://HOST:PORT/sounding")
    output.add_argument("--file", metavar="FILE", help="write an MP4 file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        print(f"{run(parse(sys.argv[1:]))} masks")
    except AvsbgError as error:
        raise SystemExit(f"error: {error}") from error
