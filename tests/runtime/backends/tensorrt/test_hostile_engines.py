"""Engines that are damaged, foreign, swapped or from elsewhere: a clear error, and nothing of them is deserialised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avsbg.errors import AvsbgError
from avsbg.runtime.backends.tensorrt import engine as engines
from avsbg.runtime.backends.tensorrt.engine import load_engine, remember_built
from avsbg.runtime.bundle import Bundle, sha256
from avsbg.runtime.bundle.manifest import MANIFEST, read_manifest
from avsbg.runtime.device.gpu import CudaDriver, Gpu
from avsbg.runtime.errors import BackendError, BundleError

NAME = "clip.fp16.plugin"
ENGINE = "engines/clip.engine"
PLUGIN = "plugin.so"
RTX_3090 = CudaDriver("13.0", None, (Gpu("GeForce RTX 3090", 86, 24 * 2**30, 82, integrated=False),))


class FakeTensorRT:
    """A TensorRT whose engine must not be asked for, unless a test allows it."""

    __version__ = "1.7.1"

    def __init__(self) -> None:
        self.deserialised: list[bytes] = []
        self.operators: list[tuple[str, ...]] = []  # that the plugin had to bring

    def Runtime(self, _: object) -> FakeTensorRT:  # noqa: N802  (TensorRT's name)
        return self

    def get_plugin_registry(self) -> FakeTensorRT:
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> None:
        self.deserialised.append(plan)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRT:
    """This machine has a GPU and a TensorRT for RTX that fit the engine; its user has built nothing."""
    import contextlib

    fake = FakeTensorRT()

    class Log:
        @contextlib.contextmanager
        def collect(self):  # type: ignore[no-untyped-def]
            yield []

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(engines, "import_runtime", lambda _: fake)
    monkeypatch.setattr(engines, "message_log", lambda _: Log())
    monkeypatch.setattr(engines, "load_plugin", lambda *given: fake.operators.append(given[-1]))
    monkeypatch.setattr(engines, "read_cuda_driver", lambda: RTX_3090)
    return fake


def _edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((bundle / MANIFEST).read_text())
    change(document)
    (bundle / MANIFEST).write_text(json.dumps(document))


def _write(bundle: Path, name: str, content: bytes) -> None:
    """Write a file of a bundle and list it as it now is: what somebody does who also edits the manifest."""
    path = bundle / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    record = {"sha256": sha256(path), "bytes": len(content)}
    _edit(bundle, lambda document: document["files"].update({name: record}))


@pytest.fixture
def bundle(bundle_copy: Path, tmp_path: Path) -> Path:
    """A bundle with an engine that passes every check before deserialising, given trust."""
    (tmp_path / PLUGIN).write_bytes(b"a library")
    shape = [1, 5, 16, 24, 3]
    record = {
        "file": ENGINE,
        "layers_file": "engines/clip.layers.json",
        "graph": "clip",
        "graph_sha256": sha256(bundle_copy / "clip.onnx"),
        "backend": "tensorrt-rtx",
        "operator": "plugin",
        "precision": "fp16",
        "realised": {"source": "builder log", "layers": 1, "products": {"fp16": 1}},
        "device": {"compute_capabilities": [86]},
        "profile": {"frames": {"smallest": shape, "optimal": shape, "largest": shape}},
        "options": {},
        "memory": {},
        "plugin": {
            "sha256": sha256(tmp_path / PLUGIN),
            "operators": ["MeanCorrelation"],
            "version": "1",
            "namespace": "",
        },
        "versions": {"tensorrt-rtx": "1.7.1"},
        "build_seconds": 1.0,
        "created": "2026-01-01T00:00:00Z",
    }
    _write(bundle_copy, ENGINE, b"vtrt" + bytes(60))
    _write(bundle_copy, "engines/clip.layers.json", b"[]\n")
    _edit(bundle_copy, lambda document: document.update(engines={NAME: record}))
    return bundle_copy


def _engine(document: dict[str, Any]) -> dict[str, Any]:
    engine: dict[str, Any] = document["engines"][NAME]
    return engine


def _load(bundle: Path, **options: Any) -> Any:
    return load_engine(Bundle.open(bundle), NAME, **{"trust": True, "plugin": bundle.parent / PLUGIN, **options})


def test_an_engine_is_deserialised_once_everything_fits(bundle: Path, trt: FakeTensorRT) -> None:
    """The fixture's engine is refused by TensorRT alone, so that the tests below show their own reason."""
    with pytest.raises(BackendError, match="tensorrt-rtx refuses the engine"):
        _load(bundle)
    assert trt.deserialised == [(bundle / ENGINE).read_bytes()]
    # Those of its record: a library that is older than an operator has the engines that were built with it.
    assert trt.operators == [("MeanCorrelation",)]


def test_only_an_engine_built_here_is_loaded_without_trust(bundle: Path, trt: FakeTensorRT) -> None:
    with pytest.raises(BackendError, match=r"was not built by this user on this machine.*avsbg build .*trust=True"):
        _load(bundle, trust=False)
    assert not trt.deserialised
    remember_built(sha256(bundle / ENGINE))
    with pytest.raises(BackendError, match="refuses the engine"):
        _load(bundle, trust=False)
    assert len(trt.deserialised) == 1


def _symlink(bundle: Path) -> None:
    (bundle / ENGINE).rename(bundle.parent / "elsewhere")
    (bundle / ENGINE).symlink_to(bundle.parent / "elsewhere")


def _outside(bundle: Path) -> None:
    (bundle / ENGINE).rename(bundle.parent / "evil.engine")

    def change(document: dict[str, Any]) -> None:
        _engine(document)["file"] = "../evil.engine"
        document["files"]["../evil.engine"] = document["files"].pop(ENGINE)

    _edit(bundle, change)


def _set(**fields: Any) -> Callable[[Path], None]:
    return lambda bundle: _edit(bundle, lambda document: _engine(document).update(fields))


def _replace(content: bytes) -> Callable[[Path], None]:
    return lambda bundle: _write(bundle, ENGINE, content)


HOSTILE = {
    "missing engine": (lambda bundle: (bundle / ENGINE).unlink(), r"clip\.engine is missing"),
    "emptied engine": (lambda bundle: (bundle / ENGINE).write_bytes(b""), "has changed: 0 bytes"),
    "truncated engine": (lambda bundle: (bundle / ENGINE).write_bytes(b"vtrt"), "has changed: 4 bytes"),
    "altered engine": (lambda bundle: (bundle / ENGINE).write_bytes(b"vtrt" + b"\1" * 60), "has changed: its sha256"),
    "symbolic link": (_symlink, "is a symbolic link"),
    "path outside the bundle": (_outside, "not a relative POSIX path inside the bundle"),
    "empty engine, listed": (_replace(b""), r"clip\.engine is empty"),
    "shared library, listed": (_replace(b"\x7fELF" + bytes(60)), "is not a TensorRT engine"),
    "pickle, listed": (_replace(b"\x80\x04cos\nsystem\n"), "is not a TensorRT engine"),
    "engine of the other TensorRT": (_replace(b"ptrt" + bytes(60)), "is an engine of tensorrt; its record says"),
    "another version": (
        _set(versions={"tensorrt-rtx": "1.6.0"}),
        r"built by tensorrt-rtx 1\.6\.0; installed is 1\.7\.1",
    ),
    "no version": (_set(versions={}), "built by tensorrt-rtx unknown"),
    "another device": (_set(device={"compute_capabilities": [120]}), r"compute capability 12\.0; this GPU.* has 8\.6"),
    "swapped plugin": (
        lambda bundle: (bundle.parent / PLUGIN).write_bytes(b"another library"),
        "is not the plugin that",
    ),
    "missing plugin": (lambda bundle: (bundle.parent / PLUGIN).unlink(), "needs the plugin library, and there is none"),
    "plugin struck from the record": (_set(plugin=None), "a plugin record exactly if its operator is the plugin"),
    "graph that is not there": (_set(graph="other"), "was built from the graph 'other', which is not listed"),
    "field that does not exist": (_set(command="rm -rf /"), "Extra inputs are not permitted"),
    "number in quotes": (_set(build_seconds="1"), "build_seconds"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_end_in_a_clear_error(bundle: Path, trt: FakeTensorRT, case: str) -> None:
    damage, message = HOSTILE[case]
    damage(bundle)
    with pytest.raises(AvsbgError, match=message):
        _load(bundle)
    assert not trt.deserialised


def test_an_unknown_engine_names_the_known_ones(bundle: Path, trt: FakeTensorRT) -> None:
    with pytest.raises(BackendError, match=rf"no engine 'renamed'.*It has: {NAME}"):
        load_engine(Bundle.open(bundle), "renamed")


def test_without_a_gpu_an_engine_is_not_touched(
    bundle: Path, trt: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "read_cuda_driver", lambda: CudaDriver(None, "the NVIDIA driver is not installed"))
    with pytest.raises(BackendError, match=r"needs a GPU: the NVIDIA driver is not installed.*avsbg doctor"):
        _load(bundle)
    assert not trt.deserialised


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_fuzzed_manifest_is_read_or_refused(bundle: Path, data: st.DataObject) -> None:
    original = (bundle / MANIFEST).read_text()
    try:
        document = json.loads(original)
        target = data.draw(
            st.sampled_from([document, _engine(document), document["graphs"]["clip"], document["files"]])
        )
        target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
        (bundle / MANIFEST).write_text(json.dumps(document))
        try:
            read_manifest(bundle / MANIFEST)
        except BundleError as error:
            assert error.message
    finally:
        (bundle / MANIFEST).write_text(original)
