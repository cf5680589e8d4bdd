"""The Python API beside `avsbg.export`: load a bundle to segment videos, live sources and frames, and verify one.

import avsbg

model = avsbg.load("avs-bg.bundle")
for frame in model.segment("video.mp4"):
    print(frame.time, frame.mask.mean())

Nothing heavy is imported before it is needed, and PyTorch not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avsbg.runtime.backends import Arrays, Backend
    from avsbg.runtime.bundle import Bundle, Vectors
    from avsbg.runtime.segment.model import Model
    from avsbg.runtime.segment.pipeline import RateOption
    from avsbg.runtime.segment.segmenter import Segmenter
    from avsbg.runtime.verify.verify import VerifyCase


def register_torch() -> None:
    """Let PyTorch be named as a backend; the runtime itself does not know it."""
    from avsbg.runtime import backends

    backends.register("torch", "avsbg.export.torch_backend:TorchBackend")


def load(
    bundle: str | Path,
    backend: str = "auto",
    *,
    device: str | None = None,
    threads: int | None = None,
    engine: str | None = None,
    trust: bool = False,
    allow_failed_accuracy: bool = False,
) -> Model:
    """Load a bundle's network, to run on this machine.

    Args:
        bundle: the directory that `avsbg export` made.
        backend: `BACKEND[:IMPLEMENTATION][:PRECISION]` as `avsbg run --backend` takes it; `auto`, or `auto:bf16`, takes
            the fastest that can run here, in fp32 unless a precision is named. `Model.selections` holds its reasons,
            which the logger `avsbg.model` tells as well.
        device: `cpu`, `cuda` or `cuda:N`; by default the backend's own.
        threads: threads of the backend; by default its choice.
        engine: the name of the engine to load, where several would fit.
        trust: load an engine that was not built by this user on this machine: it is native code.
        allow_failed_accuracy: run a precision or engine that missed its accuracy threshold.

    Returns:
        The model. Use it in a `with` block, or `close` it, where its memory is to be returned before the program ends.

    Raises:
        BundleError: there is no bundle, or it was changed; of files that are loaded later, it comes then.
        BackendError: the text names no backend. Whether it can run shows when it is first used.
    """
    from avsbg.runtime.bundle import Bundle

    register_torch()
    opened = Bundle.open(Path(bundle), defer=True)
    if "clip" in opened.manifest.graphs and engine is None and not backend.startswith("tensorrt"):
        # Weights that all graphs share: hashed while the rest is imported.
        opened.begin_checks(opened.graph("clip").external_data)
    from avsbg.runtime.segment.model import Model

    options = {"device": device, "threads": threads, "engine": engine}
    return Model(opened, backend, trust=trust, allow_failed_accuracy=allow_failed_accuracy, **options)


@contextmanager
def open_segmenter(
    bundle: Path, backend: str, *, stream: bool | None = None, live: bool = False, rate: RateOption = 1, **options: Any
) -> Iterator[Segmenter]:
    """Load a bundle for one source after the other; a function that a process of its own can be given.

    Args:
        bundle, backend, options: as of `load`, whose errors these are.
        stream, live, rate: as of `Model.segmenter`.
    """
    with load(bundle, backend, **options) as model:
        yield model.segmenter(stream=stream, live=live, rate=rate)


@dataclass
class BundleReport:
    """The outcome of `verify`.

    Attributes:
        bundle: the bundle that was opened.
        tolerance: the largest difference that passes in fp32.
        results: one for each graph or engine, as `avsbg verify --json` has them.
        not_run: each that cannot run on this machine, and why.
        masks: the probabilities of each that ran, by the file of vectors: float32 `[B, T, H, W]`.
    """

    bundle: Bundle
    tolerance: float
    results: list[dict[str, Any]] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    masks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether something ran, and all that ran agrees with PyTorch."""
        return bool(self.results) and all(result["passed"] for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; a difference may be NaN."""
        identity = {"name": self.bundle.manifest.name, "manifest_sha256": self.bundle.manifest_sha256}
        outcome = {"passed": self.passed, "results": self.results, "not_run": self.not_run}
        return {"bundle": identity, "tolerance": self.tolerance, **outcome}


def verify(
    bundle: str | Path,
    backends: Sequence[str] = (),
    *,
    engines: Sequence[str] = (),
    clips: Sequence[int] = (),
    tolerance: float = 1e-3,
    device: str | None = None,
    threads: int | None = None,
    trust: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> BundleReport:
    """Run each graph and engine of a bundle on its test vectors, and compare with what PyTorch returned.

    In fp32 each output must be within the tolerance. A lower precision is judged by the mean IoU between its masks and
    PyTorch's, which must reach the threshold in the manifest.

    Args:
        bundle: the directory.
        backends: only these, as `avsbg verify --backend` takes them; by default each graph in each form.
        engines: only these engines of the bundle; by default each.
        clips: only the vectors with these numbers of clips; by default all.
        tolerance: in fp32, the largest absolute difference of an output that passes.
        device, threads, trust: as of `load`.
        report: called with the name of each before it runs.

    Returns:
        Whether all passed, each result, and what cannot run on this machine with the reason, which is never a pass.

    Raises:
        BundleError: there is no bundle, it was changed, or it has no such vectors.
        BackendError: a backend or engine that was named cannot run.
    """
    from avsbg.runtime.backends.tensorrt.engine import find_engine
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.device.gpu import read_cuda_driver
    from avsbg.runtime.errors import BackendError
    from avsbg.runtime.verify.verify import VerifyCase, list_cases, select_vectors, verify_backend

    register_torch()
    found = BundleReport(Bundle.open(Path(bundle)), tolerance)
    select_vectors(found.bundle, clips)
    chosen = [VerifyCase(text, text) for text in backends]
    everything = list_cases(found.bundle, read_cuda_driver())
    for name in engines:
        find_engine(found.bundle, name)  # or an error that names those there are
        case = next((case for case in everything if case.options.get("engine") == name), None)
        if case is None:
            problem = f"the engine {name} cannot be verified alone."
            raise BackendError(problem, "An engine of a stream's graph needs the other graph's: build that one too.")
        chosen.append(case)
    for case in chosen or everything:
        if not chosen and case.why_not is not None:
            found.not_run[case.label] = case.why_not
            continue
        report(case.label)
        with ExitStack() as stack:
            try:
                running = stack.enter_context(_open_case(found.bundle, case, device, threads, trust=trust))
            except BackendError as error:
                # An engine for another device or version says nothing about the engine.
                if chosen or "engine" not in case.options:
                    raise
                found.not_run[case.label] = str(error)
                continue
            masks = found.masks[case.label] = {}

            def keep_masks(vectors: Vectors, outputs: Arrays, of: dict[str, Any] = masks) -> None:
                of[vectors.record.file] = outputs.get("probability")

            precision = str(running.describe().get("precision", "fp32"))
            result = verify_backend(
                running,
                select_vectors(found.bundle, clips),
                tolerance=tolerance,
                precision=precision,
                accuracy=case.accuracy or running.contract.accuracy,
                on_outputs=keep_masks,
            ).to_dict()
            about = {"target": case.label, "backend": running.describe(), "precision": precision}
            found.results.append({**about, **result})
    return found


def _open_case(bundle: Bundle, case: VerifyCase, device: str | None, threads: int | None, *, trust: bool) -> Backend:
    """The case's backend; a missed threshold does not stop it: verify is there to show it."""
    from avsbg.runtime.segment.model import create_backend
    from avsbg.runtime.streaming.frame_pair import StreamedClip

    is_engine = case.backend.startswith("tensorrt")
    how = {"device": device, "threads": None if is_engine else threads, "trust": (trust and is_engine) or None}

    def create(options: dict[str, Any]) -> Backend:
        return create_backend(bundle, case.backend, **{**how, "allow_failed_accuracy": True, **options})

    return create(case.options) if case.encode is None else StreamedClip(create(case.encode), create(case.options))
