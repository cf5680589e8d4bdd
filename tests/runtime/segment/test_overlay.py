"""The overlay as a player shows it: colours, times and the shape of pixels are the source's."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from avsbg.runtime.media.container import displayed, probe
from avsbg.runtime.segment.overlay import TINT, ContactSheet, decode_all, write_overlay
from fixtures.videos import grey_of, steady, tone, write_video

# Left and right half of each frame.
RED, BLUE = (254, 0, 0), (10, 20, 250)
UNSPECIFIED = (2, 2, 2, 0)
LOSSLESS = {"qp": "0", "preset": "ultrafast"}


def write_halves(
    path: Path,
    codec: str,
    pixel_format: str,
    tags: tuple[int, int, int, int] = UNSPECIFIED,
    *,
    size: tuple[int, int] = (96, 64),
    rotation: int | None = None,
) -> Path:
    """A second of video, red and blue, encoded with the matrix and range of its tags.

    Tags are primaries, transfer, matrix and range, as H.273 and FFmpeg number them.
    """
    width, height = size
    pixels = np.full((height, width, 3), RED, np.uint8)
    pixels[:, width // 2 :] = BLUE
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream(codec, rate=5, options=LOSSLESS if codec.startswith("libx264") else {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        if not pixel_format.startswith(("rgb", "bgr", "gbr")):
            # swscale takes 9 for BT.2020, and 601's for unspecified.
            frame = frame.reformat(format=pixel_format, dst_colorspace=tags[2], dst_color_range=tags[3] or 1)
        for number in range(5):
            frame.pts, frame.time_base = number, Fraction(1, 5)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    if rotation is not None:
        turn(path, rotation)
    return path


def turn(path: Path, degrees: int) -> None:
    """Set the display matrix in the track header of an MP4 file."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 36
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    content[at : at + 36] = b"".join((value & 0xFFFFFFFF).to_bytes(4, "big") for value in matrix)
    path.write_bytes(content)


def overlay_of(path: Path, masks: Sequence[np.ndarray] | None = None, *, fragments: bool = False) -> Path:
    """The overlay of a video, by default with an empty mask for its first second."""
    video = probe(path)
    given = [np.zeros((video.height, video.width), bool)] if masks is None else masks
    output = path.with_name("overlay.mp4")
    numbered = iter(list(enumerate(given)))
    write_overlay(video, decode_all(video), output, numbered, progress=lambda _: None, fragments=fragments)
    return output


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    """Begin and displayed pixels of each frame."""
    return [(frame.time, displayed(frame)) for frame in decode_all(probe(path)) if isinstance(frame, av.VideoFrame)]


def tags_of(path: Path) -> tuple[int, int, int, int]:
    colour = probe(path).colour
    return colour.primaries, colour.transfer, colour.matrix, colour.range


BT709, BT601, BT2020_PQ, FULL_709 = (1, 1, 1, 1), (6, 6, 6, 1), (9, 16, 9, 1), (1, 1, 1, 2)
RGB_AS_709 = (2, 2, 1, 1)
MADE = [
    ("BT.709", "libx264", "yuv420p", BT709, BT709),
    ("BT.601", "libx264", "yuv420p", BT601, BT601),
    ("BT.601 of PAL", "mpeg2video", "yuv420p", (5, 6, 5, 1), (5, 6, 5, 1)),
    ("SMPTE 240M", "libx264", "yuv420p", (7, 7, 7, 1), (7, 7, 7, 1)),
    ("BT.2020 PQ in 10 bits", "libx264", "yuv422p10le", BT2020_PQ, BT2020_PQ),
    ("BT.2020 HLG, full", "libx264", "yuv420p10le", (9, 18, 9, 2), (9, 18, 9, 2)),
    ("full range", "libx264", "yuv420p", FULL_709, FULL_709),
    ("without chroma subsampling", "libx264", "yuv444p", BT709, BT709),
    ("motion JPEG", "mjpeg", "yuvj420p", (2, 2, 5, 2), (2, 2, 5, 2)),
    ("untagged", "libx264", "yuv420p", UNSPECIFIED, UNSPECIFIED),
    ("grey", "ffv1", "gray", UNSPECIFIED, UNSPECIFIED),
    ("grey H.264, full", "libx264", "gray", (1, 1, 2, 2), (1, 1, 2, 2)),
    ("grey in 10 bits", "libx264", "gray10le", (1, 1, 2, 1), (1, 1, 2, 1)),
    ("RGB", "ffv1", "bgr0", UNSPECIFIED, RGB_AS_709),
    ("RGB H.264", "libx264rgb", "rgb24", UNSPECIFIED, RGB_AS_709),
    ("RGB with primaries", "libx264rgb", "rgb24", (1, 13, 0, 2), (1, 13, 1, 1)),
]


EVEN, ODD = (96, 64), (95, 63)
# x264 takes odd sizes only where chroma is of full size.
SIZES = [
    (*one, size)
    for one in MADE
    for size in (EVEN, ODD)
    if size == EVEN or one[1] != "libx264" or not one[2].startswith("yuv42")
]


@pytest.mark.parametrize(
    ("codec", "form", "tags", "expected", "size"),
    [one[1:] for one in SIZES],
    ids=[f"{one[0]} {one[-1][0]}" for one in SIZES],
)
def test_colours_and_their_tags_stay(
    tmp_path: Path, codec: str, form: str, tags: Any, expected: Any, size: tuple[int, int]
) -> None:
    path = write_halves(tmp_path / "v.mkv", codec, form, tags, size=size)
    mask = np.zeros((size[1], size[0]), bool)
    mask[32:] = True
    made = overlay_of(path, [mask])
    assert tags_of(made) == expected
    source, shown = frames_of(path)[2][1].astype(int), frames_of(made)[2][1].astype(int)
    for column in (8, 80):  # away from edges, where chroma of half the size blurs
        np.testing.assert_allclose(shown[8, column], source[8, column], atol=4)
        np.testing.assert_allclose(shown[52, column], (source[52, column] + TINT) / 2, atol=6)


@pytest.mark.parametrize("tags", [BT709, BT601, BT2020_PQ, FULL_709, UNSPECIFIED])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_colours_of_turned_videos_stay(tmp_path: Path, tags: Any, rotation: int) -> None:
    path = write_halves(tmp_path / "v.mp4", "libx264", "yuv420p", tags, rotation=rotation)
    made = overlay_of(path)
    assert tags_of(made) == tags
    (source, shown) = (frames_of(one)[2][1].astype(int) for one in (path, made))
    assert source.shape == shown.shape == ((64, 96, 3) if rotation == 180 else (96, 64, 3))
    for row, column in ((8, 8), (-8, -8)):
        np.testing.assert_allclose(shown[row, column], source[row, column], atol=5)


@pytest.mark.parametrize("aspect", [Fraction(64, 45), Fraction(8, 9), Fraction(1)])
@pytest.mark.parametrize(
    ("suffix", "codec", "rotation"),
    [("mp4", "libx264", None), ("mp4", "libx264", 90), ("mkv", "mpeg2video", None), ("ts", "libx264", None)],
)
def test_pixels_keep_their_shape(
    tmp_path: Path, aspect: Fraction, suffix: str, codec: str, rotation: int | None
) -> None:
    path = tmp_path / f"v.{suffix}"
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream(codec, rate=25, options=LOSSLESS if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = 72, 72, "yuv420p"
        # MPEG-2 has the ratio of the display, of which 16:9 is one.
        ratio = Fraction(16, 9) if codec == "mpeg2video" and aspect != 1 else aspect
        stream.codec_context.sample_aspect_ratio = ratio
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((72, 72, 3), 90, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    if rotation is not None:
        turn(path, rotation)
    expected = 1 / ratio if rotation else ratio
    assert probe(path).pixel_aspect == expected
    assert probe(overlay_of(path)).pixel_aspect == expected


def test_the_contact_sheet_has_square_pixels(tmp_path: Path) -> None:
    for aspect, size in ((Fraction(64, 45), (128, 72)), (Fraction(1, 2), (45, 72)), (Fraction(100), (320, 3))):
        sheet = ContactSheet(aspect)
        sheet.add(0, np.zeros((72, 90, 3), np.uint8), np.zeros((72, 90), bool))
        sheet.save(tmp_path / "sheet.png")
        found = Image.open(tmp_path / "sheet.png").size
        np.testing.assert_allclose(found, size, atol=1)


def second_masks(count: int, shape: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """A mask for each second that covers as many rows of 8 pixels as the second's number."""
    masks = np.zeros((count, *shape), bool)
    for second in range(count):
        masks[second, : 8 * second] = True
    return list(masks)


def tinted_rows(pixels: np.ndarray) -> int:
    """The number of rows of 8 pixels that are tinted: redder than they are blue."""
    difference = pixels[4::8, 32, 0].astype(int) - pixels[4::8, 32, 2]
    return int((difference > 30).sum())


@pytest.mark.parametrize("fragments", [False, True])
@pytest.mark.parametrize("place", ["first", "middle", "last", "all"])
def test_a_frame_that_is_held_has_each_seconds_mask(tmp_path: Path, place: str, fragments: bool) -> None:
    """Four seconds of a five-second video are one frame; its grey level says which one it is."""
    times = {
        "first": [Fraction(0), *(4 + time for time in steady(25, 25))],
        "middle": [*steady(25, 13), *(Fraction(9, 2) + time for time in steady(25, 12))],
        "last": [*steady(25, 26)],
        "all": [Fraction(0)],
    }[place]
    path = tmp_path / "v.mp4"
    write_held(path, times, end=Fraction(5))
    made = overlay_of(path, second_masks(5), fragments=fragments)
    assert float(probe(made).duration or 0) == pytest.approx(5, abs=0.001) or fragments
    frames = frames_of(made)
    assert frames[0][0] == 0
    assert {round(time, 3) for time, _ in frames} == {
        *(round(float(time), 3) for time in times),
        *(second for second in range(5)),
    }
    for time, pixels in frames:
        assert tinted_rows(pixels) == int(time), time
        index = max(number for number, begin in enumerate(times) if begin <= time + 0.001)
        assert abs(int(pixels[44, 60, 1]) - grey_of(index + 2)) <= 6


def write_held(path: Path, times: Sequence[Fraction], *, end: Fraction) -> None:
    """A video of 64 x 48 whose frames have these times, and of which the last is displayed until `end`."""
    with av.open(str(path), "w") as target:
        stream: Any = target.add_stream("libx264", rate=25, options=LOSSLESS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        stream.codec_context.flags |= 1 << 8  # durations of frames are those of packets
        for number, time in enumerate(times):
            pixels = np.full((48, 64, 3), grey_of(number + 2), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            until = times[number + 1] if number + 1 < len(times) else end
            frame.pts, frame.time_base = round(time * 90000), Fraction(1, 90000)
            frame.duration = round((until - time) * 90000)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def test_what_follows_the_last_mask_keeps_it_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    write_held(path, [Fraction(0)], end=Fraction(16, 5))
    made = overlay_of(path, second_masks(3))
    assert [tinted_rows(pixels) for _, pixels in frames_of(made)] == [0, 1, 2, 2]
    assert float(probe(made).duration or 0) == pytest.approx(3.2, abs=0.001)


def test_sound_goes_on_during_a_frame_that_is_held(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mkv", times=[Fraction(0), Fraction(4)], sound=tone(5))
    made = overlay_of(path, second_masks(5))
    with av.open(str(made)) as container:
        sound = sum(frame.samples for frame in container.decode(audio=0))
    assert sound / 48000 == pytest.approx(5, abs=0.1)
    assert [time for time, _ in frames_of(made)] == [0, 1, 2, 3, 4]
