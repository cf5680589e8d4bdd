"""Streams at fixed rates and at full speed, against clip mode in pairs, and over a long time."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import OtherLoad, describe_environment
from avsbg.benchmarks.measure.cases import describe_bundle
from avsbg.benchmarks.measure.memory import read_memory, reset_peak
from avsbg.benchmarks.measure.sampling import PAUSE, interleave
from avsbg.benchmarks.results.schema import Kind, Measurement, Metric, Run
from avsbg.benchmarks.results.stability import LIMITS, find_problems
from avsbg.benchmarks.results.statistics import paired_ratio
from avsbg.runtime import backends
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.streaming.frame_pair import check_streams
from avsbg.runtime.streaming.stream import Latency, Stream
from avsbg.runtime.streaming.threaded import ThreadedStream

Array = NDArray[Any]
Report = Callable[[str], None]

# Frames that may wait for the network before one is dropped: one, since older ones are stale.
CAPACITY = 1
_SCENE = 16  # different frames, which repeat


class StreamBench:
    """The stream of one bundle on one target (`BACKEND[:IMPLEMENTATION][:PRECISION]`), open while the block lasts.

    A `BackendError` if the bundle has no graphs of a stream, or the backend refuses what is asked for.
    """

    def __init__(self, bundle: Bundle, target: str, threads: int, device: str | None = None) -> None:
        check_streams(bundle)
        self.bundle, self.target, self.threads = bundle, backends.BackendSpec.parse(target), threads
        self._device = {} if device is None else {"device": device}  # refused by a backend that has no choice of it
        self._stack = ExitStack()
        self._started = datetime.now(timezone.utc).replace(microsecond=0)
        self.clip_inputs = synthetic_clip(bundle)

    def __enter__(self) -> StreamBench:
        self._imported = read_memory("VmRSS")
        with ExitStack() as stack:
            self.encode = stack.enter_context(self._create("encode", None))
            self.decode = stack.enter_context(self._create("decode", self.target.operator))
            self._stack = stack.pop_all()
        for _ in range(3):  # engines allocate and lay out weights in their first calls
            with self.stream() as stream:
                for frame, sound in self.scene(3):
                    stream.push(frame, sound)
                stream.close()
        gc.collect()
        self._loaded = read_memory("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _create(self, graph: str, operator: backends.OperatorImplementation | None) -> backends.Backend:
        known = backends.options(self.target.backend)
        options = {**self.target.options(), "operator": operator, "threads": self.threads}
        options["allow_failed_accuracy"] = True  # the row says so
        given = {name: value for name, value in options.items() if name in known}
        return backends.create(self.target.backend, self.bundle, graph=graph, **given, **self._device)

    @contextmanager
    def stream(self, latency: Latency = "one-frame") -> Iterator[Stream]:
        """A new stream on the open backends."""
        stream = Stream(self.encode, self.decode, latency=latency, outputs=("probability",))
        try:
            yield stream
        finally:
            stream.abandon()

    def scene(self, count: int) -> Iterator[tuple[Array, Array]]:
        """`count` frames with the sound that goes with each: a second of waveform, or an embedding."""
        frames = self.clip_inputs["frames"][0]
        for index in range(count):
            yield frames[index % len(frames)], self._sound(index % len(frames))

    def _sound(self, index: int) -> Array:
        name, sound = next((name, array) for name, array in self.clip_inputs.items() if name != "frames")
        if name in ("audio_embedding", "spectrogram"):
            return np.ascontiguousarray(sound[0, min(index, sound.shape[1] - 1)])
        rate = self.bundle.manifest.clip.sample_rate
        if name == "log_mel":  # a stream makes its own from the waveform
            return np.random.default_rng(index).uniform(-0.1, 0.1, rate).astype(np.float32)
        return np.ascontiguousarray(sound[0, index * rate : (index + 1) * rate])

    def row(self, kind: Kind, metrics: dict[str, Metric], **facts: Any) -> Measurement:
        """A measurement of this stream; `facts` are `case` (beyond the stream's own), `others` and `problems`."""
        clip = self.bundle.manifest.clip
        shape = {"height": clip.height, "width": clip.width, "frames": clip.frames, "audio": clip.audio}
        described = {"encode": self.encode.describe(), "decode": self.decode.describe()}
        run = Run(
            started=self._started,
            command=("avsbg", *sys.argv[1:]),
            settings={"limits": asdict(LIMITS)} if kind == "stream-pairs" else {},
            others=facts.get("others"),
        )
        return Measurement(
            kind=kind,
            case={"target": str(self.target), **shape, **facts.get("case", {})},
            metrics=metrics,
            problems=facts.get("problems", ()),
            ran=describe_bundle(self.bundle, backend=described),
            run=run,
            environment=describe_environment(),
        )

    def pace(self, rate: float | None, seconds: float, latency: Latency = "one-frame") -> Measurement:
        """Offer frames at a rate per second and time each mask; None: as fast as they are taken, none dropped."""
        arrivals: dict[float, float] = {}
        completed: list[tuple[float, float]] = []  # timestamp of the completing frame, time of the mask
        interval = 1.0 if rate is None else 1.0 / rate
        load, processor = OtherLoad(), time.process_time()
        reset_peak()
        with (
            self.stream(latency) as stream,
            ThreadedStream(stream, CAPACITY, "block" if rate is None else "drop-oldest") as live,
        ):
            began = time.perf_counter()

            def offer() -> None:
                for index, (frame, sound) in enumerate(self.scene(sys.maxsize)):
                    due = began + index * interval if rate is not None else time.perf_counter()
                    if due - began >= seconds:
                        break
                    time.sleep(max(0.0, due - time.perf_counter()))
                    stamp = 1.0 + index * interval
                    arrivals[stamp] = time.perf_counter()
                    if stream.takes_waveform:
                        # Sound for the frame's own interval; the window reaches a little beyond the frame.
                        live.push_sound(sound[: round(interval * len(sound))], stamp + 0.04 - interval)
                        live.push(frame, None, stamp)
                    else:
                        live.push(frame, sound, stamp)
                live.finish()

            source = threading.Thread(target=offer, name="avsbg-source")
            source.start()
            completed += ((mask.timestamp, time.perf_counter()) for mask in live)
            source.join()
            wall = time.perf_counter() - began
            missed = live.counters["frame"].dropped
        samples, late = _latencies(arrivals, completed, latency, None if rate is None else interval)
        intervals = np.diff([moment for _, moment in completed])
        memory = {"imported": self._imported, "loaded": self._loaded, "peak": read_memory("VmHWM")}
        metrics = {
            "latency": Metric(unit="s", samples=tuple(samples)),
            "offered": Metric(value=len(arrivals)),
            "masks": Metric(value=len(completed)),
            "missed": Metric(value=missed),
            "late": Metric(value=late),
            "jitter": Metric(unit="s", value=float(intervals[:-1].std()) if len(intervals) > 2 else 0.0),
            "duration": Metric(unit="s", value=wall),
            "busy_cores": Metric(value=(time.process_time() - processor) / wall),
            **{f"{name}_memory": Metric(unit="B", value=size) for name, size in memory.items()},
        }
        return self.row("stream-rate", metrics, case={"rate": rate, "latency_mode": latency}, others=load.share())

    def pairs(self, samples: int, warmup: int = 3) -> Measurement:
        """Time clip mode and streaming in turn; `samples` pairs after `warmup` that are dropped.

        A sample of the stream is its time per new frame over as many frames as a clip has, without a pause between
        them: both take as long, so that waking the cores up costs both the same.
        """
        frames = self.bundle.manifest.clip.frames
        with self._create("clip", self.target.operator) as clip, self.stream() as stream:
            scene = self.scene(sys.maxsize)
            stream.push(*next(scene))
            load = OtherLoad()

            def push_frames() -> None:
                for frame, sound in islice(scene, frames):
                    _expect_one(stream.push(frame, sound))

            calls: dict[str, Callable[[], object]] = {
                "clip": lambda: clip.run(self.clip_inputs, ["probability"]),
                "stream": push_frames,
            }
            seconds = interleave(calls, warmup=warmup, samples=samples, pause=PAUSE)
            others = load.share()
        seconds["stream"] = [one / frames for one in seconds["stream"]]
        problems = {name: find_problems(values, others=others) for name, values in seconds.items()}
        metrics = {name: Metric(unit="s", samples=tuple(values)) for name, values in seconds.items()}
        metrics["ratio"] = Metric.of(paired_ratio(seconds["stream"], seconds["clip"]))
        named = tuple(f"{name}: {problem}" for name, found in problems.items() for problem in found)
        return self.row("stream-pairs", metrics, case={"paired_frames": frames}, problems=named, others=others)

    def difference(self) -> Measurement:
        """Compare the masks of `latency="zero"` with the exact ones, on a scene that moves."""
        maps = {latency: self._masks(latency, _SCENE) for latency in ("one-frame", "zero")}
        exact, quick = (np.stack(maps[latency][1:-1]) for latency in ("one-frame", "zero"))
        differences = np.abs(exact - quick)
        metrics = {
            "frames": Metric(value=len(exact)),
            "largest": Metric(value=float(differences.max())),
            "mean": Metric(value=float(differences.mean())),
            "flipped": Metric(value=float(((exact > 0.5) != (quick > 0.5)).mean())),
        }
        scene = "a bright disc that moves over a textured ground, two tones (the test vectors' generator)"
        return self.row("stream-difference", metrics, case={"input": scene})

    def soak(self, frames: int, report: Report) -> Measurement:
        """Send a long stream, one frame a second by its timestamps, through at full speed; report now and then."""
        every = max(1, frames // 60)
        resident: list[int] = []
        masks, began = 0, time.perf_counter()
        with self.stream() as stream, ThreadedStream(stream, 4, "block") as live:

            def offer() -> None:
                for index, (frame, sound) in enumerate(self.scene(frames)):
                    live.push(frame, sound, index + 15 / 16)
                live.finish()

            source = threading.Thread(target=offer, name="avsbg-source")
            source.start()
            for mask in live:
                assert mask.index == masks, "masks come in order, and none is left out"
                masks += 1
                if masks % every == 0:
                    resident.append(read_memory("VmRSS"))
                    report(f"{masks} of {frames} frames, {resident[-1] / 2**20:.1f} MiB")
            source.join()
            dropped = sum(counters.dropped for counters in live.counters.values())
            incomplete = stream.counters.incomplete
        quarter = len(resident) // 4
        growth = np.median(resident[3 * quarter :]) - np.median(resident[quarter : 2 * quarter] or resident)
        metrics = {
            "frames": Metric(value=frames),
            "masks": Metric(value=masks),
            "lost": Metric(value=frames - masks),
            "dropped": Metric(value=dropped),
            "incomplete": Metric(value=incomplete),
            "span": Metric(unit="s", value=float(frames)),
            "duration": Metric(unit="s", value=time.perf_counter() - began),
            "resident": Metric(unit="B", samples=tuple(resident)),
            "growth": Metric(unit="B", value=int(growth)),
        }
        return self.row("stream-soak", metrics)

    def _masks(self, latency: Latency, count: int) -> list[Array]:
        with self.stream(latency) as stream:
            masks = [mask for frame, sound in self.scene(count) for mask in stream.push(frame, sound)]
            return [mask.probability for mask in (*masks, *stream.close())]


def synthetic_clip(bundle: Bundle) -> dict[str, Array]:
    """One clip of the test vectors' generator, in the bundle's size and form."""
    from avsbg.export.graphs import AudioForm
    from avsbg.export.vectors import make_clips
    from avsbg.model.registry import NETWORKS

    clip = bundle.manifest.clip
    # A network that this version does not know is timed too: its graphs take what the manifest says.
    record = NETWORKS.get(str(bundle.manifest.variant["network"]), NETWORKS["avs-bg"])
    return make_clips(AudioForm(clip.audio), clip, clips=1, seed=0, record=record)


def _expect_one(masks: list[Any]) -> None:
    if len(masks) != 1:
        raise BenchmarkError(f"a new frame completed {len(masks)} masks instead of one; what was timed is no step.")


def _latencies(
    arrivals: dict[float, float], completed: list[tuple[float, float]], latency: Latency, interval: float | None
) -> tuple[list[float], int]:
    """Seconds from the arrival of the frame that completes a mask to the mask; and how many took beyond an interval."""
    stamps = [stamp for stamp, _ in completed]
    samples = []
    for position, (stamp, moment) in enumerate(completed):
        if latency == "zero":
            samples.append(moment - arrivals[stamp])
        elif position + 1 < len(stamps):  # the last is completed by the end of the stream
            samples.append(moment - arrivals[stamps[position + 1]])
    return samples, 0 if interval is None else sum(sample > interval for sample in samples)
