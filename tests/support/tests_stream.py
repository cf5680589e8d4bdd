"""A bundle whose stream graphs show what they were given, made without torch.

`logits` is the frame's red value plus 1000 times its partner's; `probability` is the first sample of the frame's sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import tests_bundle

from avsbg.runtime.bundle import Bundle, write_bundle
from avsbg.runtime.media.log_mel import PATCH_SAMPLES
from avsbg.runtime.streaming.stream import Stream, open_stream

HEIGHT, WIDTH, RATE = 2, 3, 16000

_ENCODE = f"""
<ir_version: 10, opset_import: ["" : 20]>
encode (uint8[streams, {HEIGHT}, {WIDTH}, 3] frames, float[streams, {PATCH_SAMPLES}] waveform)
  => (float[streams, 1, {HEIGHT}, {WIDTH}] fused_0, float[streams, 1, {HEIGHT}, {WIDTH}] fused_1)
{{
  zero = Constant<value = int64[1] {{0}}>()
  one = Constant<value = int64[1] {{1}}>()
  three = Constant<value = int64[1] {{3}}>()
  red = Slice(frames, zero, one, three)
  value = Cast<to = 1>(red)
  fused_0 = Transpose<perm = [0, 3, 1, 2]>(value)
  first = Slice(waveform, zero, one, one)
  wide = Constant<value = int64[4] {{-1, 1, 1, 1}}>()
  single = Reshape(first, wide)
  nothing = Sub(fused_0, fused_0)
  fused_1 = Add(nothing, single)
}}
"""
_MAP = f"float[streams, 1, {HEIGHT}, {WIDTH}]"
_DECODE = f"""
<ir_version: 10, opset_import: ["" : 20]>
decode ({_MAP} fused_0, {_MAP} fused_1, {_MAP} partner_0, {_MAP} partner_1)
  => (float[streams, {HEIGHT}, {WIDTH}] logits, float[streams, {HEIGHT}, {WIDTH}] probability)
{{
  thousand = Constant<value = float {{1000.0}}>()
  scaled = Mul(partner_0, thousand)
  nothing = Sub(partner_1, partner_1)
  sum = Add(fused_0, scaled)
  all = Add(sum, nothing)
  one = Constant<value = int64[1] {{1}}>()
  logits = Squeeze(all, one)
  probability = Squeeze(fused_1, one)
}}
"""


def make_stream_bundle(path: Path) -> Bundle:
    """Write the bundle. Its graph `clip` stands for the contract only."""
    clip = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        clip (uint8[clips, 3, {HEIGHT}, {WIDTH}, 3] frames, float[clips, {3 * RATE}] waveform)
          => (uint8[clips, 3, {HEIGHT}, {WIDTH}, 3] logits) {{ logits = Identity(frames) }}"""
    )
    with write_bundle(path) as writer:
        graphs = {}
        for name, model in (("clip", clip), *_stream_models()):
            onnx.checker.check_model(model)
            onnx.save(model, writer.directory / f"{name}.onnx")
            graphs[name] = tests_bundle.graph_fields(model, f"{name}.onnx", "plain")
        fields = tests_bundle.manifest_fields(graphs)
        fields["clip"] = {"frames": 3, "height": HEIGHT, "width": WIDTH, "audio": "waveform"}
        writer.write_manifest(**fields)
    return Bundle.open(path)


def _stream_models() -> Iterator[tuple[str, onnx.ModelProto]]:
    for name, text in (("encode", _ENCODE), ("decode", _DECODE)):
        model = onnx.parser.parse_model(text)
        # The text form has no names with dots.
        for values in (model.graph.input, model.graph.output):
            for value in values:
                value.name = _dotted(value.name)
        for node in model.graph.node:
            node.input[:] = [_dotted(one) for one in node.input]
            node.output[:] = [_dotted(one) for one in node.output]
        yield name, model


def _dotted(name: str) -> str:
    return name.replace("fused_", "fused.").replace("partner_", "partner.")


def frame(value: int) -> np.ndarray:
    """A frame that the network recognises."""
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def clock(start: float, seconds: float) -> np.ndarray:
    """Sound whose samples are their own time, as far as float32 can tell (1/64 s up to a day)."""
    return (start + np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def seen(masks: list[Any]) -> list[tuple[int, int, str]]:
    """Of each mask: the frame's value, its partner's, and which partner that was."""
    values = [int(mask.outputs["logits"][0, 0]) for mask in masks]
    return [(value % 1000, value // 1000, mask.partner) for value, mask in zip(values, masks, strict=True)]


@contextmanager
def stream(bundle: Bundle, **options: Any) -> Iterator[Stream]:
    """A stream that returns both outputs."""
    with open_stream(bundle, outputs=("logits", "probability"), **options) as opened:
        yield opened
