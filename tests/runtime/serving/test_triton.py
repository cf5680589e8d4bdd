"""The backend `triton` before it has a server: addresses, tokens, graphs, and what is missing here."""

from __future__ import annotations

import importlib.util

import pytest

from avsbg.runtime import backends
from avsbg.runtime.backends import BackendSpec
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.errors import BackendError
from avsbg.runtime.streaming.frame_pair import create_streamed_clip


def test_an_address_keeps_its_colons() -> None:
    text = "triton:grpcs://host.example:8001/avs-bg-clip?timeout=5"
    spec = BackendSpec.parse(text)
    assert (spec.backend, spec.address) == ("triton", text.removeprefix("triton:"))
    assert str(spec) == text
    assert backends.options("triton") == ("address",)


@pytest.mark.parametrize(
    "address",
    ["", "host:8001/m", "http://host:8001/m", "grpc://host/m", "grpc://host:8001", "grpc://:8001/m", "grpc://h:x/m"]
    + [f"grpc://h:1/m?timeout={value}" for value in ("0", "soon", "nan")],
)
def test_what_is_no_address_is_refused(tiny: Bundle, address: str) -> None:
    with pytest.raises(BackendError, match=r"is no address of a server"):
        backends.create("triton", tiny, address=address)


def test_a_token_goes_unencrypted_to_this_machine_alone(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVSBG_TRITON_TOKEN", "secret")
    with pytest.raises(BackendError, match=r"would go to host\.example unencrypted\. Use grpcs://") as refused:
        backends.create("triton", tiny, address="grpc://host.example:8001/m")
    assert "secret" not in str(refused.value)
    for address in ("grpc://127.0.0.1:8001/m", "grpc://[::1]:8001/m", "grpcs://host.example:8001/m"):
        backends.create("triton", tiny, address=address)


def test_a_streams_graphs_are_not_sent(tiny_stream: Bundle) -> None:
    with pytest.raises(BackendError, match="takes whole clips, not the graph encode"):
        create_streamed_clip(tiny_stream, BackendSpec.parse("triton:grpc://127.0.0.1:8001/m"))


@pytest.mark.skipif(importlib.util.find_spec("tritonclient") is not None, reason="Triton's client is installed here")
def test_without_the_client_it_says_what_to_install(tiny: Bundle) -> None:
    with (
        pytest.raises(BackendError, match=r"Triton's client cannot be imported.*avsbg\[serve\]"),
        backends.create("triton", tiny, address="grpc://127.0.0.1:8001/m"),
    ):
        pass


def test_a_benchmark_measures_a_server_as_any_backend(tiny: Bundle) -> None:
    from avsbg.benchmarks.measure.cases import list_cases

    address = "grpc://127.0.0.1:8001/tiny-clip"
    remote, local = list_cases([tiny.path], [f"triton:{address}", "onnxruntime:plain"], threads=1, clips=1)
    assert (remote.label, remote.options["address"]) == (f"tiny:triton:{address}", address)
    assert local.label == "tiny:onnxruntime:plain"
