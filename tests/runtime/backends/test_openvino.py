from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avsbg.runtime.backends import BackendSpec, create
from avsbg.runtime.backends.base import DeviceTensor
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from fixtures import tiny_bundle

openvino = pytest.importorskip("openvino")


@pytest.mark.parametrize("clips", [1, 4])
@pytest.mark.parametrize("fixed", [False, True])
def test_it_computes_the_network_from_the_graph_of_standard_operators(tiny: Bundle, clips: int, fixed: bool) -> None:
    arrays = tiny_bundle.inputs(clips, seed=7)
    with create("openvino", tiny, clips=clips if fixed else None, threads=1) as backend:
        results = backend.run(arrays)
        again = backend.run(tiny_bundle.inputs(clips, seed=8))  # into the same buffers
        described = backend.describe()
    for name, reference in tiny_bundle.expected(**arrays).items():
        np.testing.assert_allclose(results[name], reference, atol=1e-5)
    assert not np.array_equal(again["logits"], results["logits"])
    assert (described["graph"], described["operator"], described["precision"]) == ("clip.plain", "plain", "fp32")
    assert described["threads"] == 1
    assert set(described["products"]) == {"f32"}


def offers(capability: str) -> bool:
    return capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_a_precision_runs_or_is_refused(tiny: Bundle) -> None:
    """By what OpenVINO says of this processor; where it would quietly take another precision, that is an error."""
    for precision, capability in (("bf16", "BF16"), ("fp16", "FP16")):
        options = BackendSpec.parse(f"openvino:{precision}").options()
        backend = create("openvino", tiny, **options)
        if not offers(capability):
            with pytest.raises(BackendError, match=rf"{precision} was asked for, but OpenVINO would execute in"):
                backend.__enter__()
            continue
        arrays = tiny_bundle.inputs(1, seed=7)
        with backend:
            described = backend.describe()
            results = backend.run(arrays)
        assert described["products"][precision.replace("fp", "f")] > 0
        assert described["gate"] == "not measured"
        difference = np.abs(results["logits"] - tiny_bundle.expected(**arrays)["logits"]).max()
        assert 1e-6 < difference < 0.2  # it is another precision, of the same function


def test_a_hint_that_no_layer_follows_is_an_error(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsbg.runtime.backends.openvino._count_products", lambda _: {"f16": 3})
    with pytest.raises(BackendError, match=r"no product of the compiled graph executes in it: 3 in f16"):
        create("openvino", tiny).__enter__()


def test_what_it_cannot_do_is_an_error(tiny: Bundle) -> None:
    with pytest.raises(BackendError, match=r"no implementation 'native' of the operator.*It has: plain"):
        create("openvino", tiny, operator="native")
    with pytest.raises(BackendError, match=r"cannot execute the graph clip\.plain, of fp32, in fp8"):
        create("openvino", tiny, precision="fp8")
    with pytest.raises(BackendError, match=r"no graph 'clip\.plain\.int8'.*avsbg quantize"):
        create("openvino", tiny, precision="int8")
    with pytest.raises(BackendError, match="clips must be at least 1, not 0"):
        create("openvino", tiny, clips=0)
    with (
        create("openvino", tiny, clips=2) as backend,
        pytest.raises(BackendError, match="opened for 2 clips a call, not for 1"),
    ):
        backend.run(tiny_bundle.inputs(1, 0))


def test_kept_outputs(tiny: Bundle) -> None:
    arrays = tiny_bundle.inputs(1, seed=7)
    with create("openvino", tiny) as backend:
        kept = backend.run(arrays, device_outputs=["logits"])
        logits = kept["logits"]
        assert isinstance(logits, DeviceTensor)
        backend.run(tiny_bundle.inputs(1, seed=8))
        np.testing.assert_allclose(logits.numpy(), tiny_bundle.expected(**arrays)["logits"], atol=1e-5)
        logits.release()
        with pytest.raises(BackendError, match="after its release"):
            logits.numpy()


def test_the_rest_of_a_graph_is_int8s_alone(tiny: Bundle) -> None:
    with pytest.raises(BackendError, match="rest of an int8 graph") as error:
        create("openvino", tiny, rest="bf16", precision="bf16")
    assert "openvino:rest-bf16:int8" in str(error.value)
    with pytest.raises(BackendError, match=r"no graph 'clip\.plain\.int8'"):
        create("openvino", tiny, rest="bf16", precision="int8")


def test_int8_must_execute_in_int8(tiny: Bundle, tmp_path: Path) -> None:
    """A graph that calls itself int8 and quantises nothing is refused when it is opened."""
    bundle = Bundle.open(Path(shutil.copytree(tiny.path, tmp_path / "copy")))
    record = bundle.graph("clip.plain").model_copy(update={"precision": "int8"})
    graphs = {**bundle.manifest.graphs, "clip.plain.int8": record}
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(BackendError, match="int8 was asked for, but no product"):
        create("openvino", bundle, precision="int8").__enter__()
