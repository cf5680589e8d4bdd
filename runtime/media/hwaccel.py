"""Hardware decoders of video, as FFmpeg has them through PyAV (https://pyav.basswood-io.com/docs/stable/)."""

from __future__ import annotations

from typing import Any

import av
from av.codec.hwaccel import HWAccel, hwdevices_available

from avsbg.runtime.errors import MediaError
from avsbg.runtime.media.bounds import bound_decoders, opening_options

SOFTWARE_HINT = "Leave out --hwaccel (in Python hwaccel=) to decode on the processor."


def create_hwaccel(name: str) -> HWAccel:
    """Create what PyAV opens a source with whose frames a device is to decode; the device itself is not opened.

    Args:
        name: `KIND[:DEVICE]`, a kind of FFmpeg's `-hwaccel`, and the device as that kind names it: `cuda`, `cuda:1`,
            `vaapi:/dev/dri/renderD128`.

    Raises:
        MediaError: FFmpeg here knows no such kind.
    """
    kind, _, device = name.partition(":")
    if kind not in (known := hwdevices_available()):
        offered = f"It has: {', '.join(known)}." if known else "It has none."
        problem = f"the FFmpeg of PyAV {av.__version__} here has no hardware decoders of the kind {kind!r}."
        raise MediaError(problem, f"{offered} {SOFTWARE_HINT}")
    # Never in software where the device cannot: what was asked for and is not there is an error.
    try:
        return HWAccel(kind, device or None, allow_software_fallback=False)
    except ValueError as error:
        problem = f"{device!r} is no device of the hardware decoders {kind}: {error}."
        raise MediaError(problem, SOFTWARE_HINT) from error


def open_container(address: str, hwaccel: str | None, **arguments: Any) -> Any:
    """`av.open` for reading, with a hardware decoder where one is named; a `MediaError` if there is none for it.

    Errors of the source are those of `av.open`. Decoders have the bounds of this process.
    """
    bounds = opening_options()
    try:
        container = _open(address, hwaccel, **arguments, **bounds)
    except ValueError:
        # FLV and MPEG program streams list no tracks that could be given options: the bound comes once they are open.
        if not bounds:
            raise
        container = _open(address, hwaccel, **arguments)
    bound_decoders(container)
    return container


def _open(address: str, hwaccel: str | None, **arguments: Any) -> Any:
    if hwaccel is None:
        return av.open(address, **arguments)
    accelerator = create_hwaccel(hwaccel)
    try:
        return av.open(address, hwaccel=accelerator, **arguments)
    except av.FFmpegError:
        _check_device(accelerator, hwaccel)
        raise
    except RuntimeError as error:  # PyAV's, where no track has a codec that the device decodes
        raise MediaError(f"no decoder of {hwaccel} can decode {address}: {error}.", SOFTWARE_HINT) from error


def _check_device(accelerator: HWAccel, name: str) -> None:
    """Open the device by itself, which tells its failure from one of a source; a `MediaError` if it fails."""
    try:
        accelerator.create(av.Codec("h264", "r"))
    except NotImplementedError:  # it decodes other codecs
        return
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"the device of {name} cannot be opened: {reason}.", SOFTWARE_HINT) from error


def check_accelerated(track: Any, name: str) -> None:
    """Check that it is a device that decodes an open track; a `MediaError` if not."""
    if not track.codec_context.is_hwaccel:
        problem = f"no decoder of {name} can decode {track.codec_context.name}, the codec of the video track."
        raise MediaError(problem, SOFTWARE_HINT)
