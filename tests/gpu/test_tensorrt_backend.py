"""The TensorRT backends on a real GPU: `pytest -m gpu tests/gpu`. Builds small engines, so it needs the extra `export`.

What these tests execute for the first time is listed in docs/tensorrt.md.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsbg.runtime.backends import Backend, create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.manifest import MANIFEST
from avsbg.runtime.errors import BackendError
from avsbg.runtime.streaming.frame_pair import StreamedClip
from avsbg.runtime.verify.verify import compare, select_vectors

pytestmark = pytest.mark.gpu

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from avsbg.export.bundle_writer import export_bundle
    from avsbg.export.graphs import AudioForm
    from avsbg.export.shape import ClipShape
    from avsbg.export.weights import from_seed
    from avsbg.model import named_variant

    path = tmp_path_factory.mktemp("gpu") / "bundle"
    module, weights = from_seed(named_variant("avs-bg", encoder="pvt_v2_b0"), AudioForm.WAVEFORM, seed=1)
    export_bundle(module, path, weights=weights, shape=ClipShape(5, 64, 96), stream=True)
    return path


class Engines:
    """Engines of one TensorRT in a bundle, each built when a test first asks for it: on a Jetson that takes minutes."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._built: set[tuple[str, str, str]] = set()

    def bundle(self, precision: str, operator: str, *graphs: str) -> Bundle:
        """The bundle with an engine of each graph, `clip` if none is named; `encode` correlates nothing."""
        from avsbg.export.engine.build import build_into_bundle
        from avsbg.export.engine.request import EngineRequest

        for graph in graphs or ("clip",):
            form = (precision, "plain" if graph == "encode" else operator, graph)
            if form not in self._built:
                build_into_bundle(
                    self._path,
                    EngineRequest(self.name, *form[:2], clips=(1, 1, 3), graph=graph),  # type: ignore[arg-type]
                    report=lambda _: None,
                    progress=lambda *_: None,
                )
                self._built.add(form)
        return Bundle.open(self._path)


@pytest.fixture(scope="session", params=list(PACKAGES))
def engines(request: pytest.FixtureRequest, exported: Path) -> Engines:
    """The engines of a TensorRT that is installed."""
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"{PACKAGES[request.param]} is not installed")
    return Engines(request.param, exported)


@pytest.fixture(params=["plugin", "plain"])
def opened(engines: Engines, request: pytest.FixtureRequest) -> Callable[..., Backend]:
    def open_engine(*, precision: str = "fp32", **options: Any) -> Backend:
        bundle = engines.bundle(precision, request.param)
        form = {"operator": request.param, "precision": precision}
        return create(engines.name, bundle, allow_failed_accuracy=True, **form, **options)

    return open_engine


def _inputs(backend: Backend, clips: int) -> dict[str, np.ndarray]:
    (vectors,) = select_vectors(backend.bundle, [clips])
    return vectors.inputs


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("fp16", 0.5)])
def test_agrees_with_pytorch(opened: Callable[..., Backend], precision: str, tolerance: float) -> None:
    with opened(precision=precision) as backend:
        comparisons = [
            one for vectors in select_vectors(backend.bundle) for one in compare(backend, vectors, tolerance)
        ]
        assert backend.describe()["precision"] == precision
    assert [one for one in comparisons if not one.passed] == []


def test_a_captured_graph_gives_what_single_calls_give(opened: Callable[..., Backend]) -> None:
    with opened(cuda_graph=True) as captured, opened(cuda_graph=False) as plain:
        for clips in (1, 1, 1, 3, 3, 3, 1):
            inputs = _inputs(plain, clips)
            ours, theirs = captured.run(inputs), plain.run(inputs)
            for name in theirs:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5)
        graph = captured.describe()["cuda_graph"]
        # TensorRT for RTX may answer that it still compiles, and is asked again at the next step.
        most = graph["captured"] == 2 and graph["launched"] == 4
        assert most or (captured.name == "tensorrt-rtx" and graph["plain_steps"] > 3)
        assert graph["why_not"] is None
        assert plain.describe()["cuda_graph"]["launched"] == 0


def test_threads(opened: Callable[..., Backend]) -> None:
    failures: list[BaseException] = []
    with opened() as backend:
        wanted = {clips: backend.run(_inputs(backend, clips)) for clips in (1, 3)}

        def work(clips: int) -> None:
            try:
                for _ in range(5):
                    results = backend.run(_inputs(backend, clips))
                    np.testing.assert_allclose(results["logits"], wanted[clips]["logits"], rtol=0, atol=1e-5)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(clips,)) for clips in (1, 3, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_kept_outputs_are_what_the_host_would_get(opened: Callable[..., Backend]) -> None:
    with opened() as backend:
        inputs = _inputs(backend, 1)
        wanted = backend.run(inputs)["logits"]
        for _ in range(6):
            kept = backend.run(inputs, ["logits"], device_outputs=["logits"])["logits"]
            np.testing.assert_allclose(kept.numpy(), wanted, rtol=0, atol=1e-5)
            kept.release()  # type: ignore[union-attr]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("fp16", 0.5)])
@pytest.mark.parametrize("operator", ["plugin", "plain"])
def test_a_stream_gives_the_clips_masks(engines: Engines, operator: str, precision: str, tolerance: float) -> None:
    """Features go from one engine to the other on the GPU, in two alternating sets of buffers."""
    bundle = engines.bundle(precision, operator, "encode", "decode")
    encode = create(engines.name, bundle, graph="encode", precision=precision)
    decode = create(engines.name, bundle, graph="decode", precision=precision, operator=operator)
    with StreamedClip(encode, decode) as backend:
        for _ in range(2):
            comparisons = [one for vectors in select_vectors(bundle) for one in compare(backend, vectors, tolerance)]
            assert [one for one in comparisons if not one.passed] == []
        sizes = {buffer.memory.nbytes for buffer in encode._pool._free}  # type: ignore[attr-defined]
        assert len(encode._pool._free) <= 2 * len(sizes)  # type: ignore[attr-defined]


def test_memory_comes_back(opened: Callable[..., Backend]) -> None:
    import pycuda.driver as cuda

    free = []
    for _ in range(4):
        with opened() as backend:
            backend.run(_inputs(backend, 1))
            device: Any = backend._device  # type: ignore[attr-defined]
            with device.active():
                free.append(cuda.mem_get_info()[0])
    # The first opening loads libraries and kernels; after that, each finds what the one before it found.
    assert max(free[1:]) - min(free[1:]) < 2**20


def test_shapes_that_no_profile_takes(opened: Callable[..., Backend]) -> None:
    with opened() as backend:
        inputs = {name: np.concatenate([array] * 4) for name, array in _inputs(backend, 1).items()}
        with pytest.raises(BackendError, match="does not take"):
            backend.run(inputs)
        backend.run(_inputs(backend, 3))


def test_an_engine_for_another_gpu_is_refused(engines: Engines, tmp_path: Path) -> None:
    import shutil

    bundle = engines.bundle("fp32", "plain")
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    document = json.loads((copy / MANIFEST).read_text())
    for record in document["engines"].values():
        record["device"]["compute_capabilities"] = [53]
    (copy / MANIFEST).write_text(json.dumps(document))
    with (
        pytest.raises(BackendError, match=r"built for compute capability 5\.3"),
        create(engines.name, Bundle.open(copy), precision="fp32", operator="plain"),
    ):
        pass


def test_a_gpu_that_is_not_there(opened: Callable[..., Backend]) -> None:
    with pytest.raises(BackendError, match="there is no GPU number 99"), opened(device=99):
        pass


# In a process of its own, since such an error ends all use of the GPU.
_STICKY = """
import sys
import numpy as np
from pathlib import Path
from avsbg.runtime.backends import create
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.verify.verify import select_vectors
bundle = Bundle.open(Path(sys.argv[1]))
(vectors,) = select_vectors(bundle, [1])
with create(sys.argv[2], bundle, precision="fp32", operator="plain", cuda_graph=False) as backend:
    backend.run(vectors.inputs)
    context = backend._contexts[0]
    context._context.set_tensor_address("logits", 256)  # an address that nobody has
    for _ in range(2):
        try:
            backend.run(vectors.inputs)
        except BackendError as error:
            print(error)
"""


def test_a_sticky_error_ends_clearly(engines: Engines) -> None:
    import subprocess
    import sys

    bundle = engines.bundle("fp32", "plain")
    done = subprocess.run(
        [sys.executable, "-c", _STICKY, str(bundle.path), engines.name],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "the GPU failed:" in done.stdout and "the GPU failed earlier:" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
