"""Streams on a server at full speed, each in a thread, and how long each mask took; for an environment with a client.

Usage: serving_client.py BUNDLE ADDRESS STREAMS FRAMES. Prints JSON: `latencies`, in seconds, by stream; `seconds`,
from the first frame to the last mask.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.serving.triton import ServedStream, TritonBackend
from avsbg.runtime.streaming.frame_pair import frame_inputs

WARM_UP = 3  # frames


def main() -> None:
    path, address, streams, frames = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    bundle = Bundle.open(path)
    vectors = next(bundle.vectors())
    clip = {name: array[:1] for name, array in vectors.inputs.items()}
    inputs = [frame_inputs(clip, index) for index in range(bundle.manifest.clip.frames)]
    begin = threading.Barrier(streams + 1)

    def run(number: int) -> list[float]:
        spent = []
        with TritonBackend(bundle, address=address) as backend:
            stream = ServedStream(backend)
            for index in range(WARM_UP):
                stream.push(inputs[index % len(inputs)])
            begin.wait()
            for index in range(frames):
                start = time.perf_counter()
                stream.push(inputs[(index + number) % len(inputs)])
                spent.append(time.perf_counter() - start)
            stream.finish()
        return spent

    with ThreadPoolExecutor(streams) as pool:
        waiting = [pool.submit(run, number) for number in range(streams)]
        begin.wait()
        start = time.perf_counter()
        latencies = [one.result() for one in waiting]
        seconds = time.perf_counter() - start
    print(json.dumps({"latencies": latencies, "seconds": seconds}))


if __name__ == "__main__":
    main()
