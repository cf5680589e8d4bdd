"""The clip of `make demo`, composed of GPL-2 photos and recordings, and the README's moving picture of a run on it.

One scene, in which three objects sound one after the other for five seconds each: what the network marks follows the
sound alone. Sources: the Debian packages of `scripts/stamps_media.sh`; the clip's own record names them.

    python -m tools.demo_clip compose docs/media/three-voices.mp4 $(scripts/stamps_media.sh out/media)
    avsbg run out/demo/small docs/media/three-voices.mp4 -o out/demo/run
    python -m tools.demo_clip picture out/demo/run docs/media/three-voices.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from avsbg.atomic import atomic_file
from avsbg.model.front_end import SAMPLE_RATE
from avsbg.model.training.media import write_clip_video
from avsbg.model.training.stamps_library import BACKGROUND_LICENCES, SOUNDING, STAMPS_LICENCE, Library, load_library

Array = NDArray[Any]

# Name, longer side and centre, as parts of the frame's side. All are in the test split, as is the recording's part.
VOICES = (("rooster", 0.46, (0.25, 0.66)), ("elephant", 0.46, (0.72, 0.70)), ("fire engine", 0.44, (0.60, 0.25)))
BACKGROUND = "mate/nature/Dune.jpg"  # GPL-2+, as the cut-outs are
SIDE, RATE, SECONDS = 384, 4, 5  # pixels; frames a second; of each voice
SHOWN = 320  # pixels of the moving picture's side
DRIFT = 0.02  # how far an object drifts to each side, of the frame's side
LOUDNESS = 0.1  # root mean square

app = typer.Typer(no_args_is_help=True, help="The demo's clip and the README's moving picture.")


@app.command()
def compose(
    output: Annotated[Path, typer.Argument(help="The video to write; its sources go beside it, as .json.")],
    stamps: Annotated[Path, typer.Option(help="The folder of tuxpaint-stamps-default.")],
    backgrounds: Annotated[Path, typer.Option(help="The folder of the background packages.")],
) -> None:
    """Compose the clip."""
    library = load_library(stamps, backgrounds, held_out="scenes", seed=0)
    with Image.open(backgrounds / BACKGROUND) as image:
        background = image.convert("RGB")
    side = min(background.size)
    scene = background.crop((0, 0, side, side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    write_clip_video(output, _frames(library, scene), _sound(library), rate=RATE, crf=26)
    names = [name for name, *_ in VOICES]
    files = {
        path for one in SOUNDING if one.name in names for path in (one.path, one.test_photo, one.test_sound) if path
    }
    used = [
        {**one, "file": name}
        for one in library.sources
        if (name := one["file"].removeprefix(f"{stamps}/")).rpartition(".")[0] in files
    ]
    record = {
        "licence": "GPL-2.0-or-later",
        "made by": "python -m tools.demo_clip compose",
        "stamps": STAMPS_LICENCE,
        "background": {"file": BACKGROUND, "licence": BACKGROUND_LICENCES[BACKGROUND]},
        "sources": used,
    }
    with atomic_file(output.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n")
    typer.echo(f"{output}: {output.stat().st_size / 1e3:.0f} kB")


def _frames(library: Library, background: Image.Image) -> Array:
    stamps = {stamp.name: stamp for stamp in library.sounding["test"]}
    frames = []
    for step in range(len(VOICES) * SECONDS * RATE):
        frame = background.copy()
        for turn, (name, size, centre) in enumerate(VOICES):
            image = stamps[name].photos[0]
            scale = SIDE * size / max(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
            drift = DRIFT * np.array([np.sin(step / 5 + 2 * turn), np.cos(step / 7 + turn)])
            left, top = (SIDE * (np.array(centre) + drift) - np.array(image.size) / 2).round().astype(int)
            frame.paste(image, (int(left), int(top)), image)
        frames.append(np.asarray(frame))
    return np.stack(frames)


def _sound(library: Library) -> Array:
    """int16 `[n, 1]`: each voice repeated for its time."""
    sounds = {stamp.name: stamp.sound for stamp in library.sounding["test"] if stamp.sound is not None}
    voices = [np.resize(sounds[name], SECONDS * SAMPLE_RATE) for name, *_ in VOICES]
    return np.rint(np.clip(LOUDNESS * np.concatenate(voices), -1, 1) * 32767).astype(np.int16)[:, None]


@app.command()
def picture(
    run: Annotated[Path, typer.Argument(help="The output of `avsbg run` on the clip.")],
    output: Annotated[Path, typer.Argument(help="The APNG to write.")],
) -> None:
    """Draw the run as a moving picture: a frame a second, with the name of what sounds below it."""
    import av
    from matplotlib.font_manager import findfont

    font = ImageFont.truetype(findfont("DejaVu Sans"), 18)
    pictures = []
    with av.open(str(run / "overlay.mp4")) as video:
        for index, frame in enumerate(video.decode(video=0)):
            if index % RATE != RATE // 2:
                continue
            second = index // RATE
            sheet = Image.new("RGB", (SHOWN, SHOWN + 32), "white")
            sheet.paste(
                Image.fromarray(frame.to_ndarray(format="rgb24")).resize((SHOWN, SHOWN), Image.Resampling.LANCZOS),
                (0, 0),
            )
            name = VOICES[second // SECONDS][0]
            ImageDraw.Draw(sheet).text((SHOWN / 2, SHOWN + 16), f"sound: {name}", "black", font, anchor="mm")
            pictures.append(sheet.quantize(128, dither=Image.Dither.NONE))
    with atomic_file(output) as temporary:
        pictures[0].save(temporary, "PNG", save_all=True, append_images=pictures[1:], duration=800, loop=0)
    typer.echo(f"{output}: {len(pictures)} frames, {output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    app()
