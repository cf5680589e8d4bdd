"""The generator of sounding stamps, with stand-ins for the media of the Debian packages."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from avsbg.model.training import stamps_library as catalogue
from avsbg.model.training.data import AvsBenchDataset
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import SPLITS
from avsbg.model.training.media import read_clip, read_sound
from avsbg.model.training.sounding_stamps import make_scene
from avsbg.model.training.stamps_library import load_library
from fixtures.avsbench import write_wav
from fixtures.cli import run_avsbg


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A disc for every photo, a tone for every recording (every other one long), a plain colour for backgrounds."""
    root = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    sounding = [
        path for files in catalogue.SOUNDING for path in (files.path, *files.more_photos, files.test_photo) if path
    ]
    for path in {*sounding, *catalogue.SILENT, *catalogue.DISTRACTORS}:
        photo = root / "stamps" / f"{path}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGBA", (60, 40))
        ImageDraw.Draw(image).ellipse((5, 5, 54, 34), fill=(*(int(value) for value in rng.integers(0, 256, 3)), 255))
        image.save(photo)
    for index, files in enumerate(catalogue.SOUNDING):
        time = np.arange(16000 * (1 + 3 * (index % 2))) / 16000
        for path, pitch in ((files.path, 200 + 100 * index), (files.test_sound, 250 + 100 * index)):
            if path is not None:
                tone = 8000 * np.sin(2 * np.pi * pitch * time)
                write_wav(root / "stamps" / f"{path}.ogg", tone.astype(np.int16))
    for name in catalogue.BACKGROUND_LICENCES:
        path = root / "backgrounds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 64), tuple(int(value) for value in rng.integers(0, 256, 3))).save(path)
    return root


def _library(media, held_out="scenes"):
    return load_library(media / "stamps", media / "backgrounds", held_out=held_out, seed=0)


@pytest.mark.parametrize("task", ["s4", "ms3"])
def test_scenes_show_what_sounds(media, task):
    library = _library(media)
    moved = {True: [], False: []}
    for index in range(60):
        scene = make_scene(library, task, "train", 64, (0, 0, index))
        voices = [actor for actor in scene.actors if actor.end > actor.start]
        assert 2 <= len(scene.actors) <= 3
        assert len(voices) == 1 if task == "s4" else 1 <= len(voices) <= 2
        assert len({actor.stamp.name for actor in scene.actors}) == len(scene.actors)
        for second in range(5):
            sounding = any(actor.sounds(second) for actor in scene.actors)
            heard = np.abs(scene.sound[second * 16000 + 1000 : (second + 1) * 16000 - 1000]).max()
            assert scene.masks[second].any() <= sounding  # hidden behind another, it may have no pixel
            assert (heard > 400) == sounding
        for actor in scene.actors:
            far = np.abs(np.diff(actor.corners, axis=0)).sum(axis=1).mean() > 64 * 0.03
            moved[actor.end > actor.start].append(far)
            assert actor.corners.min() >= 0
            assert (actor.corners.max(axis=0) <= 64 - np.array(actor.image.size)).all()
    assert 0.6 < np.mean(moved[True]) < 0.95
    assert 0.1 < np.mean(moved[False]) < 0.5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(media, tmp_path):
    command = ["--task", "ms3", "--split-sizes", "3", "2", "2", "--size", "32", "--stamps", str(media / "stamps")]
    command += ["--backgrounds", str(media / "backgrounds")]
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        result = run_avsbg("data", "sounding-stamps", tmp_path / name, *command, "--seed", seed)
        assert result.code == 0, result.output

    def files(name):
        root = tmp_path / name
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert files("a") == files("b")
    assert files("a") != files("c")
    dataset = AvsBenchDataset(tmp_path / "a", "ms3", "test")
    assert (len(dataset), dataset.sound) == (2, "log-mel")
    assert set(torch.unique(dataset[1].masks).tolist()) <= {0.0, 1.0}
    again = run_avsbg("data", "sounding-stamps", tmp_path / "a", *command)
    assert "exists already" in str(again.error)

    record = json.loads((tmp_path / "a" / "Multi-sources" / "SOURCES.json").read_text())
    assert record["clips"] == {"train": 3, "val": 2, "test": 2}
    assert all(source["licence"] and len(source["sha256"]) == 64 for source in record["sources"])
    sheet = [
        "data",
        "show",
        str(tmp_path / "a"),
        "--task",
        "ms3",
        "--picture",
        str(tmp_path / "sheet.png"),
        "--limit",
        "2",
    ]
    assert run_avsbg(*sheet).code == 0
    assert Image.open(tmp_path / "sheet.png").size == (5 * 160, 2 * (160 + 16))  # small frames are enlarged

    videos = ["data", "video", str(tmp_path / "a"), "--task", "ms3", "-o", str(tmp_path / "videos"), "--limit", "1"]
    assert run_avsbg(*videos).code == 0
    (video,) = (tmp_path / "videos").iterdir()
    frames = torch.from_numpy(np.stack(read_clip(video, 5)[0]))
    assert (frames.float() - dataset[0].frames.float()).abs().mean() < 10  # H.264 halves the colours' resolution
    sound, written = read_sound(dataset.clips[0].wav), read_sound(video)
    assert written.shape[1] == 1
    assert abs(len(written) - len(sound)) < 2048  # AAC's blocks


def test_the_test_split_shows_and_sounds_something_new_where_the_sources_allow_it(media):
    library = _library(media)
    sounds = {split: {stamp.name: stamp.sound for stamp in library.sounding[split]} for split in SPLITS}
    assert len(sounds["train"]) == len(sounds["test"]) == len(catalogue.SOUNDING)
    shared = [name for name, sound in sounds["train"].items() if np.array_equal(sound, sounds["test"][name])]
    short = {files.name for i, files in enumerate(catalogue.SOUNDING) if i % 2 == 0}
    assert set(shared) == short - {files.name for files in catalogue.SOUNDING if files.test_sound}
    assert f"for {len(shared)} of {len(sounds['train'])} classes" in library.limits[0]
    pictures = {split: {image.tobytes() for image in library.backgrounds[split]} for split in SPLITS}
    assert not pictures["train"] & (pictures["val"] | pictures["test"])
    for files, train, test in zip(catalogue.SOUNDING, library.sounding["train"], library.sounding["test"], strict=True):
        shown = {photo.tobytes() for photo in train.photos}
        assert len(train.photos) == 1 + len(files.more_photos) and len(test.photos) == 1
        assert (test.photos[0].tobytes() not in shown) == (files.test_photo is not None)


@pytest.mark.slow
def test_distractors_stand_in_for_a_quarter_of_the_objects_and_never_in_a_test(media):
    library = _library(media)
    photos = {split: {photo.tobytes() for photo in library.distractors[split]} for split in SPLITS}
    assert photos["train"] and photos["val"] and not photos["test"]
    assert not photos["train"] & photos["val"]
    drawn = {}
    for split in SPLITS:
        known = {p.tobytes() for stamp in library.sounding[split] + library.silent for p in stamp.photos}
        assert not known & photos[split]
        actors = [actor for index in range(120) for actor in make_scene(library, "s4", split, 32, (0, 0, index)).actors]
        drawn[split] = [
            np.mean([actor.stamp.photos[0].tobytes() in photos[split] for actor in actors if bool(actor.end) == sounds])
            for sounds in (True, False)
        ]
    assert drawn["test"] == [0, 0]
    assert all(0.15 < share < 0.35 for share in drawn["train"] + drawn["val"])


def test_held_out_classes_are_in_one_split_alone(media):
    library = _library(media, "classes")
    names = {split: {stamp.name for stamp in library.sounding[split]} for split in SPLITS}
    assert set.union(*names.values()) == {files.name for files in catalogue.SOUNDING}
    assert sum(map(len, names.values())) == len(catalogue.SOUNDING)
    assert all(len(classes) >= 4 for classes in names.values())


def test_missing_media_are_named(tmp_path):
    with pytest.raises(DatasetError, match="Debian packages tuxpaint-stamps-default"):
        load_library(tmp_path, tmp_path, held_out="scenes", seed=0)
