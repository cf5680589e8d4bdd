"""Hardware decoders: none but the one that was asked for, the same frames, and a reason where there is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.hwaccel import hwdevices_available

from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import MediaError
from avsbg.runtime.media import container, hwaccel
from avsbg.runtime.media.container import probe
from avsbg.runtime.segment.pipeline import Options
from avsbg.runtime.segment.run import segment_video
from avsbg.runtime.segment.segmenter import ClipSegmenter
from fixtures.videos import read_mute, steady, tone, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds in a profile and a size that hardware decodes."""
    path = tmp_path_factory.mktemp("hwaccel") / "v.mp4"
    return write_video(path, times=steady(25, 50), size=(320, 240), sound=tone(2), encoder={"qp": "4"})


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(MediaError, match="no hardware decoders of the kind 'warp'") as error:
        Options(hwaccel="warp:1")
    assert all(kind in str(error.value) for kind in hwdevices_available())


def test_a_device_that_is_no_number_is_refused() -> None:
    with pytest.raises(MediaError, match=r"'x' is no device of the hardware decoders cuda: .* Leave out --hwaccel"):
        Options(hwaccel="cuda:x")


@pytest.mark.parametrize("kind", hwdevices_available())
def test_a_kind_says_why_it_cannot_decode_and_where_it_can_has_the_same_frames(video: Path, kind: str) -> None:
    # No machine has that many devices.
    with pytest.raises(MediaError, match=f"{kind}:99 can.* Leave out --hwaccel "):
        read_mute(probe(video, hwaccel=f"{kind}:99"))
    try:
        decoded = read_mute(probe(video, hwaccel=kind))
    except MediaError as error:
        assert re.search(f"{kind} can", str(error))  # "cannot be opened", or "can decode" after "no decoder of"
        return
    for sample, software in zip(decoded, read_mute(probe(video)), strict=True):
        assert (sample.time, sample.number) == (software.time, software.number)
        assert np.abs(sample.pixels.astype(int) - software.pixels).max() <= 2  # conversion from another layout


class _Accelerator:
    """The settings that PyAV would be given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.given = arguments, options


def test_the_option_reaches_pyav_for_the_frames_of_both_readers(
    tiny: Bundle, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    original = av.open

    def open_recorded(address: str, *arguments: Any, **options: Any) -> Any:
        if (accelerator := options.pop("hwaccel", None)) is not None:
            opened.append(accelerator.given)
        return original(address, *arguments, **options)

    def segment(output: str, kind: str | None) -> dict[str, Any]:
        return segment_video(ClipSegmenter(backend), video, tmp_path / output, Options(hwaccel=kind))

    monkeypatch.setattr(hwaccel, "hwdevices_available", lambda: ["npu"])
    monkeypatch.setattr(hwaccel, "HWAccel", _Accelerator)
    monkeypatch.setattr(av, "open", open_recorded)
    with create("onnxruntime", tiny) as backend:
        # This decoder is software after all.
        with pytest.raises(MediaError, match="no decoder of npu:1 can decode h264"):
            segment("refused", "npu:1")
        assert not (tmp_path / "refused").exists()
        checked: list[str] = []
        monkeypatch.setattr(container, "check_accelerated", lambda track, name: checked.append(f"{track.type} {name}"))
        opened.clear()
        summary = segment("done", "npu:1")
        assert "hwaccel" not in segment("software", None)["settings"]
    assert summary["settings"]["hwaccel"] == "npu:1"
    # For the network and for the overlay; sound is opened without.
    assert opened == [(("npu", "1"), {"allow_software_fallback": False})] * 2
    assert checked == ["video npu:1"] * 2


def test_a_device_that_is_not_there_is_told_from_a_source_that_is_not(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Missing(_Accelerator):
        def create(self, codec: Any) -> None:
            raise av.error.ExternalError(0, f"no device for {codec.name}")

    def fail(address: str, **_: Any) -> Any:
        raise av.error.InvalidDataError(0, f"{address} is no video")

    monkeypatch.setattr(hwaccel, "hwdevices_available", lambda: ["npu"])
    monkeypatch.setattr(hwaccel, "HWAccel", Missing)
    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(MediaError, match="the device of npu cannot be opened: no device for h264"):
        hwaccel.open_container(str(video), "npu")
    monkeypatch.setattr(Missing, "create", lambda *_: None)
    with pytest.raises(av.error.InvalidDataError, match="is no video"):
        hwaccel.open_container(str(video), "npu")
