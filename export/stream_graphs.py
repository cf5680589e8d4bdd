"""The two graphs of a stream: what concerns each new frame alone, and what it and its partner make of each other.

`encode` runs once per frame. `decode` takes the features of a frame and of its partner, the frame after it (for the
last frame the one before it), and returns the frame's mask. Together they compute the clip graph's function.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from avsbg.export.graphs import OUTPUTS, AudioForm, ClipGraph
from avsbg.export.shape import ClipShape, check_streamable
from avsbg.model.avs_bg import WIDTH, AvsBg
from avsbg.model.encoders import STAGE_STRIDES
from avsbg.runtime.bundle.graph_name import GraphName
from avsbg.runtime.media.log_mel import PATCH_SAMPLES

FUSED = tuple(f"fused.{stage}" for stage in range(len(STAGE_STRIDES)))
PARTNER = tuple(f"partner.{stage}" for stage in range(len(STAGE_STRIDES)))


class StreamGraph(ClipGraph):
    """What both graphs have in common: the clip graph's modules, and so its weights and their names.

    The dynamic dimension counts the streams that advance together by one frame.
    """

    BATCH: ClassVar[str] = "streams"
    network: AvsBg

    def __init__(self, clip: ClipGraph) -> None:
        """Take the modules of `clip`.

        Raises:
            ExportError: the network mixes all frames of a clip, so that no frame can be computed before the last.
        """
        check_streamable(clip.network.variant.network)
        super().__init__(clip.network, clip.audio, clip.audio_encoder)


class EncodeGraph(StreamGraph):
    """A frame and its second of sound to the fused features of the four stages, before the correlation attention."""

    outputs = FUSED

    def forward(self, frames: Tensor, sound: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Encode.

        Args:
            frames: uint8 `[N, H, W, 3]`.
            sound: float32, one patch each: waveform `[N, 15600]`, log-mel `[N, 1, 96, 64]`, or embedding `[N, 128]`.

        Returns:
            four maps `[N, 128, h, w]`.
        """
        # The cast comes first: TensorRT takes bytes as an input, and casts them, and does nothing else with them.
        clip = frames.to(torch.float32)[:, None]
        normalised, audio = self.network_inputs(clip, sound if self.log_mel else sound[:, None])
        return tuple(self.network.encode(normalised.flatten(0, 1), audio.flatten(0, 1)))

    def example(self, shape: ClipShape) -> dict[str, Tensor]:
        """As in `ClipGraph`."""
        frames = torch.zeros(2, shape.height, shape.width, 3, dtype=torch.uint8)
        one = (PATCH_SAMPLES,) if self.audio is AudioForm.WAVEFORM else self.audio.shape(1)[1:]
        return {"frames": frames, self.audio.value: torch.zeros(2, *one)}


class DecodeGraph(StreamGraph):
    """The features of a frame and of its partner to the frame's logits and probabilities.

    A variant without motion has no partners: its graph takes the frame's features alone.
    """

    outputs = OUTPUTS

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Args: 4 maps of the frames, then 4 of their partners, `[N, 128, h, w]`. Returns: two maps `[N, H, W]`."""
        stages = len(FUSED)
        partner = list(maps[stages:]) if self.network.variant.motion else None
        logits = self.network.decode(list(maps[:stages]), partner)
        return logits, torch.sigmoid(logits)

    def example(self, shape: ClipShape) -> dict[str, Tensor]:
        """As in `ClipGraph`; each input is a tensor of its own, since the exporter takes equal objects for one."""
        names = (*FUSED, *PARTNER) if self.network.variant.motion else FUSED
        return {
            name: torch.zeros(2, WIDTH, shape.height // stride, shape.width // stride)
            for name, stride in zip(names, STAGE_STRIDES * 2, strict=False)
        }

    def dynamic_shapes(self, batch: dict[int, Any]) -> tuple[Any, ...]:
        """As in `ClipGraph`."""
        return ((batch,) * (len(FUSED) * (2 if self.network.variant.motion else 1)),)


def graph_module(clip: ClipGraph, graph: str) -> ClipGraph:
    """The module that a graph of a bundle was exported from, by the graph's name (`decode.plain`)."""
    return {"encode": EncodeGraph, "decode": DecodeGraph}.get(GraphName.parse(graph).role, lambda same: same)(clip)
