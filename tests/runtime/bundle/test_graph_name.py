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


def test_other_copies_of_a_graph() -> None:
    assert str(GraphName("decode").converted("bf16").plain()) == "decode.plain.bf16"
    assert str(GraphName.parse("clip.plain.int8").converted("fp32")) == "clip.plain"
