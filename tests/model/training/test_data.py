"""AVSBench's layout, the dataset, the conversion of its pickles and the preparation from videos."""

from __future__ import annotations

import pickle
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from avsbg.model.training.data import AvsBenchDataset, clip_log_mel, collate
from avsbg.model.training.errors import DatasetError
from avsbg.model.training.layout import Clip, read_clips
from avsbg.model.training.media import read_clip, read_sound, resize, write_clip_video
from avsbg.model.training.preparation import read_log_mel_pickle, seconds_of
from fixtures.avsbench import clip as square_clip
from fixtures.avsbench import write_dataset, write_wav
from fixtures.cli import run_avsbg
from fixtures.golden import int16, load, waveform


@pytest.mark.parametrize("task", ["s4", "ms3"])
def test_samples_hold_what_the_files_hold(tmp_path, task):
    write_dataset(tmp_path, task)
    for split, first, masks in (("train", 0, 1 if task == "s4" else 5), ("val", 4, 5), ("test", 6, 5)):
        dataset = AvsBenchDataset(tmp_path, task, split)
        assert (dataset.sound, dataset.height, dataset.width) == ("wav", 32, 32)
        batch = collate([dataset[0], dataset[1]])
        frames, mask, _ = square_clip(first, 32)
        assert [clip.name for clip in batch.clips] == [f"clip{first}", f"clip{first + 1}"]
        np.testing.assert_array_equal(batch.frames[0], frames)
        np.testing.assert_array_equal(batch.masks[0], mask[:masks] / 255)
        assert batch.log_mel.shape == (2, 5, 1, 96, 64)


def test_the_task_folder_itself_can_be_given(tmp_path):
    write_dataset(tmp_path, "ms3")
    assert read_clips(tmp_path / "Multi-sources", "ms3") == read_clips(tmp_path, "ms3")


def test_log_mel_of_a_wav_file_is_the_released_one(tmp_path):
    golden = load("audio_frontend_c1")
    write_wav(tmp_path / "full.wav", int16(waveform()))
    np.testing.assert_allclose(clip_log_mel(tmp_path / "full.wav"), golden["logmel_from_int16_wav"], atol=1e-5)
    write_wav(tmp_path / "short.wav", int16(waveform())[:51200])
    short = clip_log_mel(tmp_path / "short.wav")
    np.testing.assert_allclose(short, golden["logmel_padded_from_3p2s_int16_wav"].reshape(short.shape), atol=1e-5)
    for samples in (0, 15599, 96000):
        write_wav(tmp_path / "bad.wav", np.zeros(samples, np.int16))
        with pytest.raises(DatasetError, match="log-mel patches"):
            clip_log_mel(tmp_path / "bad.wav")


class Files:
    """Of an MS3 data set, those that the test spoils."""

    def __init__(self, root: Path) -> None:
        data = root / "Multi-sources" / "ms3_data"
        self.table = data.parent / "ms3_meta_data.csv"
        self.frame = data / "visual_frames/clip0/clip0.mp4_3.png"
        self.mask = data / "gt_masks/train/clip0/clip0_2.png"
        self.wav = data / "audio_wav/train/clip0.wav"
        self.pickle = data / "audio_log_mel/train/clip0.pkl"

    def leave_the_pickle_alone(self) -> None:
        self.wav.unlink()
        self.pickle.parent.mkdir(parents=True)
        self.pickle.touch()

    def resize_all_frames(self) -> None:
        for path in self.frame.parent.iterdir():
            Image.new("RGB", (30, 30)).save(path)


SPOILED = {
    "clip0.mp4_3.png does not exist": lambda files: files.frame.unlink(),
    "cannot be read as an image": lambda files: files.frame.write_bytes(files.frame.read_bytes()[:100]),
    "32 x 64 pixels": lambda files: Image.new("RGB", (64, 32)).save(files.frame),
    "no multiples of 32": Files.resize_all_frames,
    "mode RGB": lambda files: Image.new("RGB", (32, 32)).save(files.mask),
    "has no sound": lambda files: files.wav.unlink(),
    "convert-avsbench": Files.leave_the_pickle_alone,
    "cannot be read as sound": lambda files: files.wav.write_bytes(b"RIFF nothing"),
    "there is no ms3_meta_data.csv": lambda files: files.table.unlink(),
    "no column 'split'": lambda files: files.table.write_text("video_id\nclip0\n"),
    "line 2: the split is 'training'": lambda files: files.table.write_text("video_id,split\nclip0,training\n"),
    "no clips of the split train": lambda files: files.table.write_text("video_id,split\nclip0,val\n"),
    "cannot be the name of a clip": lambda files: files.table.write_text("video_id,split\n../secret,train\n"),
}


@pytest.mark.parametrize("message", SPOILED)
def test_what_is_wrong_is_named(tmp_path, message):
    write_dataset(tmp_path, "ms3")
    SPOILED[message](Files(tmp_path))
    with pytest.raises(DatasetError) as caught:
        AvsBenchDataset(tmp_path, "ms3", "train")[0]
    assert message in str(caught.value)
    result = run_avsbg("data", "check", tmp_path, "--task", "ms3")
    assert result.code == 1


def test_check_passes_a_sound_data_set(tmp_path):
    write_dataset(tmp_path, "s4")
    result = run_avsbg("data", "check", tmp_path, "--task", "s4")
    assert result.code == 0
    assert "train 4 (sound from wav, 32x32)" in result.output


def _pickle_sounds(root: Path) -> None:
    """Replace the WAV files of a data set by pickled tensors, as AVSBench ships them."""
    for clip in read_clips(root, "s4"):
        patches = clip_log_mel(clip.wav).requires_grad_()
        clip.log_mel_pickle.parent.mkdir(parents=True, exist_ok=True)
        with clip.log_mel_pickle.open("wb") as stream:
            pickle.dump(patches, stream)
        clip.wav.unlink()


def test_converted_pickles_hold_the_same_patches(tmp_path):
    write_dataset(tmp_path, "s4")
    from_wav = AvsBenchDataset(tmp_path, "s4", "train")[1].log_mel
    _pickle_sounds(tmp_path)
    result = run_avsbg("data", "convert-avsbench", tmp_path, "--task", "s4")
    assert result.code == 0, result.output
    assert "8 of 8 clips converted" in result.output
    dataset = AvsBenchDataset(tmp_path, "s4", "train")
    assert dataset.sound == "log-mel"
    assert torch.equal(dataset[1].log_mel, from_wav)
    again = run_avsbg("data", "convert-avsbench", tmp_path, "--task", "s4")
    assert "0 of 8 clips converted, 8 were there already" in again.output


class _Command:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_Command(), "which no tensor needs"),
        (torch.zeros(4, 1, 96, 64), "not a float32 tensor"),
        (torch.zeros(5, 1, 96, 64, dtype=torch.float64), "not a float32 tensor"),
        (torch.nn.Parameter(torch.zeros(5, 1, 96, 64)), "_rebuild_parameter"),
        ([1, 2, 3], "holds a list"),
        (b"\0" * 2**21, "bytes; five"),
    ],
)
def test_pickles_that_hold_anything_else_are_refused(tmp_path, monkeypatch, content, reason):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "clip.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DatasetError, match=reason):
        read_log_mel_pickle(path)
    assert not (tmp_path / "executed").exists()


def test_damaged_pickles_are_refused(tmp_path):
    path = tmp_path / "clip.pkl"
    whole = pickle.dumps(torch.zeros(5, 1, 96, 64))
    for content in (b"", whole[:1000], whole[:-20], b"\x80\x04" + bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"clip\.pkl"):
            read_log_mel_pickle(path)
    one_value = pickle.dumps(torch.zeros(1).expand(5, 1, 96, 64))
    path.write_bytes(one_value)
    assert read_log_mel_pickle(path).shape == (5, 1, 96, 64)
    # A tensor that claims more values than its own storage has.
    offset_one = pickle.dumps(torch.zeros(30721).as_strided((5, 1, 96, 64), (6144, 6144, 64, 1), 1))
    path.write_bytes(offset_one.replace(b"K\x01(K\x05K\x01K`K@", b"K\x02(K\x05K\x01K`K@"))
    with pytest.raises(DatasetError, match="beyond its own content"):
        read_log_mel_pickle(path)


def _write_video(path: Path, rate: int, frames: int, samples: int) -> None:
    """A video whose frame n has the grey level 2 n, with a tone of 440 Hz in stereo at 44.1 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=rate, width=64, height=48, pix_fmt="yuv420p")
        video.bit_rate = 2_000_000
        sound = container.add_stream("aac", rate=44100, layout="stereo") if samples else None
        for n in range(frames):
            pixels = np.full((48, 64, 3), 2 * n, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        if sound is not None:
            tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(samples) / 44100)).astype(np.int16)
            block = av.AudioFrame.from_ndarray(np.repeat(tone, 2)[None], format="s16", layout="stereo")
            block.sample_rate = 44100
            container.mux(sound.encode(block))
            container.mux(sound.encode())


def test_files_with_a_colon_in_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames, samples = np.zeros((2, 16, 16, 3), np.uint8), np.zeros((32000, 1), np.int16)
    write_clip_video(Path("clip:1.mp4"), frames, samples)
    assert len(read_clip(Path("clip:1.mp4"), 2)[0]) == 2
    assert len(read_sound(Path("clip:1.mp4"))) >= 32000


def test_the_frame_rule(tmp_path):
    _write_video(tmp_path / "v.mp4", rate=25, frames=60, samples=44100)
    frames, _ = read_clip(tmp_path / "v.mp4", 5)
    shown = [int(frame.mean().round()) for frame in frames]
    np.testing.assert_allclose(shown, [46, 96, 118, 118, 118], atol=3)
    starts = {0.0: 5, 5.0: 5, 6.0: 4, 8.0: 2}
    assert {start: seconds_of(Clip(tmp_path, "s4", "train", "v", "c", start)) for start in starts} == starts


def test_resizing_takes_the_four_nearest_pixels():
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], 3, axis=2)
    # Halving a ramp without antialiasing: each pixel is the mean of the two in its middle.
    np.testing.assert_array_equal(resize(ramp, 1, 12)[0, :, 0], np.arange(5, 240, 20))


def test_videos_become_clips(tmp_path):
    folder = tmp_path / "Multi-sources"
    folder.mkdir()
    (folder / "ms3_meta_data.csv").write_text("video_id,split\ngood,train\nsilent,train\nmissing,test\n")
    _write_video(folder / "ms3_data/raw_videos/good.mp4", rate=10, frames=50, samples=5 * 44100)
    _write_video(folder / "ms3_data/raw_videos/silent.mp4", rate=10, frames=50, samples=0)
    command = ["data", "prepare", str(tmp_path), "--task", "ms3", "--size", "32"]
    result = run_avsbg(*command)
    assert result.code == 1
    assert "1 of 3 clips prepared" in result.output
    assert "silent.mp4 has no sound" in result.err
    assert "missing.mp4 does not exist" in result.err
    masks = folder / "ms3_data/gt_masks/train/good"
    masks.mkdir(parents=True)
    for k in range(1, 6):
        Image.new("1", (32, 32), 1).save(masks / f"good_{k}.png")
    sample = AvsBenchDataset(tmp_path, "ms3", "train")[0]
    assert sample.frames.shape == (5, 32, 32, 3)
    assert sample.masks.min() == 1
    assert torch.equal(sample.log_mel, clip_log_mel(folder / "ms3_data/audio_wav/train/good.wav"))
    assert "0 of 3 clips prepared, 1 were there already" in run_avsbg(*command).output
    refused = run_avsbg(*command[:-1], "33")
    assert isinstance(refused.error, DatasetError)
