"""The names of sources: a file, a folder, an address, or a device."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from avsbg.runtime.errors import MediaError
from avsbg.runtime.threads import Policy

# Of a folder, what else lies in it is left alone; a file that is named is taken whatever its name.
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv".split()  # noqa: SIM905
)
# Files that every output of a run holds.
OUTPUT_FILES = ("summary.json", "frames.jsonl")
# FFmpeg's input devices that PyAV's wheels for Linux hold and that carry video or sound.
DEVICES = {
    "v4l2": "a camera, e.g. v4l2:/dev/video0",
    "alsa": "a microphone, e.g. alsa:default",
    "lavfi": "FFmpeg's generators, e.g. lavfi:testsrc2[out0];sine[out1]",
}
# Addresses that PyAV opens, and what each may lead on to; never to a file of this machine.
PROTOCOLS = ("http", "https", "tcp", "udp", "rtp", "rtsp", "rtmp", "srt")
WHITELIST = ",".join([*PROTOCOLS, "crypto", "tls", "data", "httpproxy"])
# These lose nothing if they are read late.
PATIENT = {"http", "https", "tcp", "lavfi"}


@dataclass(frozen=True)
class LiveSource:
    """A source that is read as it comes and may never end."""

    name: str  # as the user wrote it
    address: str  # that FFmpeg opens
    device: str | None  # FFmpeg's input device, or None for an address
    options: dict[str, str] = field(default_factory=dict)  # FFmpeg's
    waits: bool = False  # for a reader that is late, so that nothing need be dropped

    @property
    def policy(self) -> Policy:
        """The policy of a queue of its samples, unless the user names one."""
        return "block" if self.waits else "drop-oldest"


def parse_source(text: str) -> Path | LiveSource:
    """Read `scheme://...`, `DEVICE:NAME` with FFmpeg options after `?`, or a path; a `MediaError` for other schemes."""
    if not text.strip():  # as a path it would be the working folder: a variable of a shell that is not set
        raise MediaError("a source is empty.", "Name a file, a folder, an address or a device.")
    if match := re.match(r"([a-z][a-z0-9+.]*)://", text, re.IGNORECASE):
        scheme = match[1].lower()
        if scheme not in PROTOCOLS:
            known = ", ".join(f"{name}://" for name in PROTOCOLS)
            raise MediaError(f"{text} is no address that can be read.", f"Addresses begin with {known}.")
        return LiveSource(text, text, None, waits=scheme in PATIENT)
    device, _, rest = text.partition(":")
    if device in DEVICES and rest:
        name, _, query = rest.partition("?")
        return LiveSource(text, name, device, _options(text, query), device in PATIENT)
    if re.fullmatch(r"/dev/video\d+", text):
        return LiveSource(text, text, "v4l2")
    return Path(text)


def list_videos(folder: Path, but: Path | None = None) -> list[Path]:
    """The videos in a folder and those below, by their suffixes, in order.

    Left out are the outputs of earlier runs, which hold a summary, whatever lies in the directory `but`, and in hidden
    ones, where outputs are made.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            continue
        below = [parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder]
        inside = but is not None and but.resolve() in (parent.resolve() for parent in below)
        if not inside and not any(parent.name.startswith(".") or is_output(parent) for parent in below):
            found.append(path)
    return found


def is_output(directory: Path) -> bool:
    """Whether a directory is the output of a run."""
    return all((directory / name).is_file() for name in OUTPUT_FILES)


def _options(text: str, query: str) -> dict[str, str]:
    options = {}
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not name or not equals:
            hint = "For instance v4l2:/dev/video0?video_size=1280x720&framerate=30."
            raise MediaError(f"the options of {text} are not NAME=VALUE, joined by &.", hint)
        options[name] = value
    return options
