"""A bound on the frames that this process decodes, for one whose files are those of strangers."""

from __future__ import annotations

from typing import Any

from avsbg.runtime.errors import MediaError

# Tracks of a file whose decoders have the bound while FFmpeg finds out what the file holds.
_MOST_TRACKS = 100
_options: dict[str, str] = {}


def bound_pixels(most: int) -> None:
    """Let the decoders of this process, from now on, refuse a frame of more pixels before they make room for it.

    A decoder counts with the padding of its rows.
    """
    _options["max_pixels"] = str(most)


def opening_options() -> dict[str, Any]:
    """The bound as arguments of `av.open`: to find out what a file holds, FFmpeg may decode its first frames."""
    return {"stream_options": [_options] * _MOST_TRACKS} if _options else {}


def bound_decoders(container: Any) -> None:
    """Give the bound to the decoders of an open container; a `MediaError` if it has more tracks than can be bounded."""
    if _options:
        if (tracks := len(container.streams)) > _MOST_TRACKS:
            raise MediaError(f"the file has {tracks} tracks; at most {_MOST_TRACKS} are taken.", "Keep those you need.")
        for stream in container.streams.video:
            if stream.codec_context is not None:
                stream.codec_context.options = dict(_options)
