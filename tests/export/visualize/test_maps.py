"""`avsbg visualize`: its maps are those that PyTorch computes, its slices average to the mean correlation."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avsbg.export.precision.graphs import add_graph
from avsbg.export.visualize.maps import ATTENTION, GATE, TPAVI, MapReader, VisualizeError, VolumeSlicer
from avsbg.export.visualize.video import VisualizeOptions, visualize_video
from avsbg.runtime.bundle import Bundle, update_bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.errors import MediaError
from fixtures import tiny_bundle
from fixtures.videos import steady, tone, write_video


def first_vectors(bundle: Bundle):
    return next(bundle.vectors())


def network_inputs(exported):
    arrays = first_vectors(exported.bundle).inputs.values()
    return exported.module.network_inputs(*map(torch.from_numpy, arrays))


@pytest.mark.parametrize("key", ["avs-bg, waveform", "avs-bg as published, embedding"])
def test_the_maps_are_pytorchs_and_a_slice_averages_to_the_mean(export_once, key: str) -> None:
    exported = export_once(key)
    with torch.inference_mode():
        stages = exported.module.network.forward_stages(*network_inputs(exported))
    reader = MapReader(exported.bundle)
    found = reader.read(first_vectors(exported.bundle).inputs)
    assert reader.missing == {}
    assert set(reader.differences) == set(reader.tensors)
    wanted = {GATE: stages.fusion_gate, ATTENTION: stages.correlation_attention}
    assert set(found.maps) == set(wanted)
    for kind, tensors in wanted.items():
        assert len(found.maps[kind]) == len(tensors) == 4
        for ours, theirs in zip(found.maps[kind], tensors, strict=True):
            np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-5)
            assert ours.min() >= 0 and ours.max() <= 1
    slicer = VolumeSlicer()
    for stage, (features, mean) in enumerate(zip(stages.fused, stages.mean_correlation, strict=True)):
        np.testing.assert_allclose(found.features[stage], features, atol=1e-5)
        np.testing.assert_allclose(found.mean_correlation[stage], mean[:, 0], rtol=1e-4)
        # The last frame's partner is the one before it.
        for own, other in ((0, 1), (1, 2), (2, 1)):
            row, column = features.shape[2] - 1, features.shape[3] // 2
            values = slicer(found.features[stage][own], found.features[stage][other], row, column)
            dots = torch.einsum("c,chw->hw", features[own, :, row, column], features[other])
            np.testing.assert_allclose(values, dots, atol=1e-4)
            assert np.maximum(values, 0).mean() == pytest.approx(float(mean[own, 0, row, column]), rel=1e-4)


def test_avsbench_has_the_response_of_its_own_attention(export_once) -> None:
    exported = export_once("avsbench, log-mel")
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        for block in exported.module.network.tpavi
        for layer in (block.theta, block.phi)
    ]
    with torch.inference_mode():
        exported.module.network(*network_inputs(exported))
    for hook in hooks:
        hook.remove()
    reader = MapReader(exported.bundle)
    found = reader.read(first_vectors(exported.bundle).inputs)
    assert set(found.maps) == {TPAVI} and found.features == []
    assert set(reader.missing) == {GATE, ATTENTION}
    for stage, response in enumerate(found.maps[TPAVI]):
        theta, phi = seen[2 * stage][0], seen[2 * stage + 1][0].expand(-1, -1, *response.shape[1:])
        wanted = torch.einsum("cthw,cthw->thw", theta, phi) / theta[0].numel()
        np.testing.assert_allclose(response, wanted, rtol=1e-3, atol=1e-5)


def test_in_a_lower_precision_the_difference_is_reported(export_once, tmp_path: Path) -> None:
    source = export_once("avs-bg, waveform").bundle.path
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    with update_bundle(Bundle.open(copy)) as update:
        add_graph(update, "clip.plain", "fp16")
    bundle = Bundle.open(copy)
    half = MapReader(bundle, "clip.plain.fp16")
    assert 1e-6 < max(half.differences.values()) < 2e-2
    ours = half.read(first_vectors(bundle).inputs).maps
    theirs = MapReader(bundle, "clip.plain").read(first_vectors(bundle).inputs).maps
    for kind, maps in theirs.items():
        for one, other in zip(ours[kind], maps, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-2)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, wider than the pictures are: a whole clip of three, and one that is too short."""
    path = tmp_path_factory.mktemp("explain") / "video.mkv"
    return write_video(path, times=steady(5, 20), rate=5, size=(1280, 720), sound=tone(4))


def test_pictures_arrays_and_summary_of_a_video(export_once, video: Path, tmp_path: Path) -> None:
    bundle = export_once("avs-bg, waveform").bundle
    seen: list[tuple[str, int, int | None]] = []
    options = VisualizeOptions(clips=2, pixels=((0, 0), (1279, 719)), frame=2, stage=1)
    summary = visualize_video(bundle, video, tmp_path / "out", options, progress=lambda *one: seen.append(one))
    assert json.loads((tmp_path / "out/visualize.json").read_text()) == json.loads(json.dumps(summary))
    assert [clip["seconds"] for clip in summary["clips"]] == [[0, 1, 2], [3]]
    assert ("clips", 2, 2) in seen and ("pictures", 25, 25) in seen
    for clip in summary["clips"]:
        assert len(clip["maps"]) == 8
        assert Image.open(tmp_path / "out" / clip["sheet"]).width > 200
        arrays = np.load(tmp_path / "out" / clip["arrays"])
        for one in clip["maps"]:
            values = arrays[f"{one['map']}.{one['stage']}"]
            assert list(values.shape) == one["shape"] == [len(clip["seconds"]), 16 >> one["stage"], 24 >> one["stage"]]
            assert one["quantiles"]["0"] == values.min() and one["quantiles"]["1"] == values.max()
            assert len(one["pictures"]) == len(clip["seconds"])
            for picture in one["pictures"]:
                assert Image.open(tmp_path / "out" / picture).size == (640, 360)
    first, last = summary["slices"]
    assert (first["second"], first["partner"]) == (2, 1)
    assert last["stages"][0]["position"] == {"row": 7, "column": 11, "of": [8, 12]}
    for one in summary["slices"]:
        assert one["stages"][0]["mean_after_relu"] == pytest.approx(one["stages"][0]["mean_correlation"], rel=1e-4)
        assert Image.open(tmp_path / "out" / one["picture"]).height > 100
        assert np.load(tmp_path / "out" / one["arrays"])["correlation.1"].shape == (8, 12)
    with pytest.raises(MediaError, match="exists already"):
        visualize_video(bundle, video, tmp_path / "out", VisualizeOptions())
    # The clip follows from the frame; its last frame was repeated, and is its own partner.
    again = visualize_video(
        bundle, video, tmp_path / "out", VisualizeOptions(frame=3, pixels=((640, 360),), silent=True), replace=True
    )
    assert [clip["clip"] for clip in again["clips"]] == [1]
    assert (again["slices"][0]["second"], again["slices"][0]["partner"]) == (3, 3)
    assert len(again["slices"][0]["stages"]) == 4
    assert again["video"]["sound"] == "silence" and summary["video"]["sound"] == "its own"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": ((1280, 0),)}, r"the pixel 1280,0 is outside of .*video\.mkv, whose pictures have 1280 x 720"),
        ({"pixels": ((0, -1),)}, "the pixel 0,-1 is outside"),
        ({"pixels": ((0, 0),), "stage": 4}, "there is no stage 4. Stages are 0"),
        ({"pixels": ((0, 0),), "frame": 5, "start": 0}, "the frame 5 is not in the seconds 0 to 2"),
        ({"pixels": ((0, 0),), "frame": 4}, r"there is no second 4 in .*: the last one is 3"),
        ({"start": 60}, r"there is no second 60 in .*video\.mkv: it ends before"),
        ({"frame": 1}, "without a pixel"),
        ({"graph": "encode"}, "does not take whole clips. Name one of: clip, clip.plain"),
    ],
)  # fmt: skip
def test_errors_name_the_value_and_leave_nothing(export_once, video: Path, tmp_path: Path, options, message) -> None:
    bundle = export_once("avs-bg, waveform").bundle
    with pytest.raises((VisualizeError, MediaError), match=message):
        visualize_video(bundle, video, tmp_path / "out", VisualizeOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_lacks_a_map_says_so(export_once, tiny: Bundle, tmp_path: Path) -> None:
    with pytest.raises(VisualizeError, match=r"no attention maps\. No fusion gate: the variant has no sound"):
        MapReader(export_once("avs-bg without audio and motion").bundle)
    with pytest.raises(VisualizeError, match="tiny has no attention maps"):
        MapReader(tiny)
    still = write_video(tmp_path / "video.mkv", times=steady(5, 10), rate=5, sound=tone(2))
    options = VisualizeOptions(pixels=((0, 0),))
    with pytest.raises(VisualizeError, match="no correlation volume to slice: AVSBench has none"):
        visualize_video(export_once("avsbench, log-mel").bundle, still, tmp_path / "out", options)
    mute = write_video(tmp_path / "mute.mkv", times=[Fraction(0), Fraction(1)], rate=1)
    with pytest.raises(MediaError, match="no audio track"):
        visualize_video(export_once("avs-bg, waveform").bundle, mute, tmp_path / "out", VisualizeOptions())
    assert not (tmp_path / "out").exists()
    without_audio = tiny_bundle.without_audio(export_once("avs-bg, waveform").bundle, tmp_path / "bundle")
    summary = visualize_video(without_audio, mute, tmp_path / "out", VisualizeOptions())
    assert summary["video"]["sound"] == "silence"
    assert list(summary["missing"]) == ["fusion_gate"]


def test_a_tensor_that_is_not_pytorchs_stage_is_refused(export_once, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(export_once("avs-bg, waveform").bundle.path, tmp_path / "copy"))
    document = json.loads((copy / MANIFEST).read_text())
    record = min(document["vectors"], key=lambda one: one["clips"])
    with np.load(copy / record["file"]) as archive:
        arrays = dict(archive)
    name = next(name for name in arrays if name.startswith("intermediates.fusion_gate.2"))
    arrays[name] = 1 - arrays[name]
    np.savez_compressed(copy / record["file"], **arrays)
    from avsbg.runtime.bundle import sha256

    path = copy / record["file"]
    document["files"][record["file"]] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    (copy / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(VisualizeError, match=r"should be fusion_gate\.2, but differs"):
        MapReader(Bundle.open(copy))
