"""A stream in a thread of its own, between sources that do not wait and a consumer that takes its time.

with ThreadedStream(stream, capacity=8, policy="drop-oldest") as live:
    threading.Thread(target=capture, args=(live,)).start()   # calls live.push, live.push_sound and at last live.finish
    for mask in live:
        show(mask)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from avsbg.runtime.streaming.stream import Stream, StreamMask
from avsbg.runtime.threads import Aborted, Channel, ChannelCounters, Policy

if TYPE_CHECKING:
    from typing_extensions import Self

# Chunks of sound that may wait. They are small, and at 10 ms a chunk this is half a minute.
SOUND_CAPACITY = 3000

_Work = Callable[[], list[StreamMask]]


class ThreadedStream:
    """Runs a stream's network in a thread.

    Args:
        stream: an open one, which belongs to this object from now on.
        capacity: how many frames, and how many masks, may wait. Of sound, 3000 chunks may.
        policy: what happens to a new frame when as many as that wait: `block` makes `push` wait, `drop-oldest` drops
            the oldest frame that waits, but not the sound that came with it or apart from it. Masks are not dropped: a
            consumer that does not take them stops the network, and then the policy acts on the frames.
    """

    def __init__(self, stream: Stream, capacity: int = 8, policy: Policy = "block") -> None:
        self.stream = stream
        self._work: Channel[_Work] = Channel({"frame": capacity, "sound": SOUND_CAPACITY}, policy)
        self._masks: Channel[StreamMask] = Channel({"mask": capacity})
        self._thread = threading.Thread(target=self._run, name="avsbg-stream", daemon=True)

    @property
    def counters(self) -> dict[str, ChannelCounters]:
        """Counts of the queues, by kind: `frame`, `sound` and `mask`."""
        return {**self._work.counters, **self._masks.counters}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._work.abort()
        self._masks.abort()
        self._thread.join()
        self.stream.abandon()

    def push(self, frame: NDArray[Any], sound: NDArray[Any] | None = None, timestamp: float | None = None) -> None:
        """Hand in a frame, from any one thread; as `Stream.push`.

        Raises:
            ChannelClosedError: the block ended, or `finish` was called.
            AvsbgError: what the stream failed with.
        """
        if sound is not None and self.stream.takes_waveform:
            self.push_sound(sound)
            sound = None
        self._work.put(lambda: self.stream.push(frame, sound, timestamp), "frame")

    def push_sound(self, samples: NDArray[Any], timestamp: float | None = None) -> None:
        """Hand in sound, from any one thread; as `Stream.push_sound`, with the errors of `push`."""
        self._work.put(lambda: self.stream.push_sound(samples, timestamp), "sound")

    def finish(self) -> None:
        """Say that nothing more comes: iteration ends when all masks were taken."""
        self._work.close()

    def __iter__(self) -> Iterator[StreamMask]:
        """The masks as they become final, until `finish`; raises what the stream failed with."""
        with suppress(Aborted):  # the block was left
            yield from self._masks

    def _run(self) -> None:
        try:
            for work in chain(self._work, [self.stream.close]):
                for mask in work():
                    self._masks.put(mask, "mask")
            self._masks.close()
        except Aborted:
            return
        except BaseException as error:  # raised in the threads that wait
            self._work.close(error)
            self._masks.close(error)
