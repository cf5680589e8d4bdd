"""Names of graphs, taken apart and put together."""

from __future__ import annotations

import pytest

from avsbg.runtime.bundle.graph_name import GraphName


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("clip", GraphName("clip")),
        ("clip.plain", GraphName("clip", is_plain=True)),
        ("encode.fp16", GraphName("encode", precision="fp16")),
        ("decode.plain.int8", GraphName("decode", is_plain=True, precision="int8")),
        ("clip.rest-fp16.int8", GraphName("clip", precision="int8", rest="fp16")),
        ("decode.plain.rest-fp16.fp8", GraphName("decode", is_plain=True, precision="fp8", rest="fp16")),
        ("clip.rest-fp16", GraphName("clip.rest-fp16")),
        ("clip.rest-fp7.int8", GraphName("clip.rest-fp7.int8")),
        ("clip.rest-fp16.rest-fp16.int8", GraphName("clip.rest-fp16.rest-fp16.int8")),
        # Any name that a manifest may list is kept whole.
        ("clip.fp32", GraphName("clip.fp32")),
        ("clip.int8.plain", GraphName("clip.int8.plain")),
        ("", GraphName("")),
    ],
)
def test_a_name_is_what_its_parts_make(text: str, name: GraphName) -> None:
    assert GraphName.parse(text) == name
    assert str(name) == text
    assert name.file == f"{text}.onnx"
    assert name.is_of_stream == text.startswith(("encode", "decode"))


def test_other_copies_of_a_graph() -> None:
    assert str(GraphName("decode").converted("bf16").plain()) == "decode.plain.bf16"
    assert str(GraphName("clip").converted("int8", "fp16").plain()) == "clip.plain.rest-fp16.int8"
    assert str(GraphName.parse("clip.rest-fp16.int8").converted("fp16")) == "clip.fp16"
    assert str(GraphName.parse("clip.plain.int8").converted("fp32")) == "clip.plain"
