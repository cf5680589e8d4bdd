"""The network that `avsbg run` asks for, opened: clip by clip or as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsbg.cli.backends import create_backend

if TYPE_CHECKING:
    from avsbg.runtime.segment.segmenter import Segmenter


@contextmanager
def open_segmenter(path: Path, target: str, *, stream: bool | None, live: bool, **options: Any) -> Iterator[Segmenter]:
    """Open a bundle's network on what a target names.

    Args:
        path: the bundle.
        target: what executes it.
        stream: as a stream; None for a live source if the bundle has the graphs.
        live: whether the source is live: the sound is then taken from where the frame is.
        options: what `create_backend` takes.

    Raises:
        BundleError: the bundle cannot be opened, or was replaced meanwhile.
        BackendError: the backend refuses what is asked for, or the bundle has no graphs for streams.
    """
    from avsbg.runtime import backends
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.errors import BundleError
    from avsbg.runtime.segment.segmenter import ClipSegmenter

    bundle = Bundle.open(path)
    parsed = backends.BackendSpec.parse(target)
    with ExitStack() as stack:
        segmenter: Segmenter
        if stream or (stream is None and live and {"encode", "decode"} <= set(bundle.manifest.graphs)):
            from avsbg.runtime.segment.stream_segmenter import StreamSegmenter
            from avsbg.runtime.streaming.frame_pair import check_streams

            check_streams(bundle)
            # The encoder has no operator of ours, so its implementation is a matter of the decoder.
            encoder = str(replace(parsed, operator=None))
            encode = stack.enter_context(create_backend(encoder, bundle, graph="encode", **options))
            decode = stack.enter_context(create_backend(target, bundle, graph="decode", **options))
            segmenter = StreamSegmenter(encode, decode, "timestamp" if live else "published")
        else:
            segmenter = ClipSegmenter(stack.enter_context(create_backend(target, bundle, **options)))
        if not bundle.is_current():
            raise BundleError(f"{path} was updated while it was opened.", "Run the command again.")
        yield segmenter
