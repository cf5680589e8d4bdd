"""`avsbg visualize` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from fixtures.cli import run_avsbg
from fixtures.engines import passed
from fixtures.videos import steady, tone, write_video


def test_mistakes_are_a_paragraph(tiny: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mkv", times=steady(5, 10), rate=5, sound=tone(2))
    result = run_avsbg("visualize", tiny.path, video, "--pixel", "12")
    assert result.code == 1 and "'12' is no pixel. Write it as X,Y" in result.paragraph
    result = run_avsbg("visualize", tiny.path, video, "--pixel", "64,0")
    assert result.code == 1 and "the pixel 64,0 is outside of" in result.paragraph
    result = run_avsbg("visualize", tiny.path, video)
    assert result.code == 1 and "tiny has no attention maps" in result.paragraph
    result = run_avsbg("visualize", tiny.path, video, "--backend", "openvino")
    assert result.code == 1 and "openvino does not give attention maps" in result.paragraph
    result = run_avsbg("visualize", tiny.path, video, "--backend", "onnxruntime:plain:fp16")
    assert result.code == 1 and "clip.plain.fp16" in result.paragraph  # the graph that it chose, which tiny lacks
    three = ("--backend", "onnxruntime", "--implementation", "plain", "--precision", "fp16")
    assert run_avsbg("visualize", tiny.path, video, *three).paragraph == result.paragraph
    result = run_avsbg("visualize", tiny.path, video, "--implementation", "native")
    assert result.code == 1 and "onnxruntime:native does not give attention maps" in result.paragraph
    assert sorted(path.name for path in tmp_path.iterdir()) == ["video.mkv"]


def test_a_graph_that_missed_its_accuracy_threshold_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mkv", times=steady(5, 10), rate=5, sound=tone(2))
    document = json.loads((bundle_copy / MANIFEST).read_text())
    document["graphs"]["clip"]["accuracy"] = passed(0.5)
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    refused = run_avsbg("visualize", bundle_copy, video, "--overwrite")
    assert "the graph clip missed its accuracy threshold" in refused.paragraph
    assert "--allow-failed-accuracy" in refused.paragraph
    assert (
        "tiny has no attention maps" in run_avsbg("visualize", bundle_copy, video, "--allow-failed-accuracy").paragraph
    )


def test_torch_is_not_needed() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import avsbg.export.visualize.video, avsbg.export.visualize.maps as c\n"
        "import numpy as np; one = np.ones((3, 2, 2), np.float32)\n"
        "assert (c.VolumeSlicer()(one, one, 1, 1) == 3).all()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
