"""AVSegFormer (arXiv 2307.01146), as its released code computes it; every frame on its own.

Data flow: encoder -> projections -> deformable encoder over strides 8 to 32 -> mask feature at stride 4, gated by the
sound; and queries made from the sound -> decoder -> products with the mask feature -> head -> logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avsbg.model.clips import AUDIO_WIDTH, check_clip
from avsbg.model.deformable_attention import DeformableAttention, Sizes
from avsbg.model.encoders import Encoder
from avsbg.model.network import Network
from avsbg.model.variants import Variant

WIDTH, HEADS, QUERIES = 256, 8, 300


@dataclass
class AvSegFormerStages:
    """Intermediates of a forward pass; B * T = N rows, clip-major. S is the number of cells at strides 8 to 32."""

    encoder: list[Tensor]  # [N, C_i, h, w]
    projected: list[Tensor]  # [N, 256, h, w]
    query: Tensor  # [N, 300, 256], made from the sound
    memory: Tensor  # [N, S, 256]
    decoded: Tensor  # [N, 300, 256]
    mask_feature: Tensor  # [N, 256, H / 4, W / 4], after the gate
    logits: Tensor  # [B, T, H, W], with several classes [B, T, classes, H, W]


class Attention(nn.Module):
    """Multi-head attention over tokens, with the parameters of `nn.MultiheadAttention`."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * WIDTH, WIDTH))  # rows of queries, keys, values
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * WIDTH)) if bias else None
        self.out_proj = nn.Linear(WIDTH, WIDTH, bias=bias)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """Args: query `[N, Q, 256]`; memory `[N, S, 256]`. Returns: `[N, Q, 256]`."""
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        parts = zip((query, memory, memory), self.in_proj_weight.chunk(3), biases, strict=True)
        heads = (F.linear(*part).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(*heads)  # [N, heads, Q, 32]
        output: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return output

    def attend_single(self, token: Tensor) -> Tensor:
        """`forward` without biases where the memory is one token, `[N, 1, 256]`: its weight is 1 for every query."""
        output: Tensor = self.out_proj(F.linear(token, self.in_proj_weight[2 * WIDTH :]))
        return output


class QueryLayer(nn.Module):
    """One layer of the query generator: attention among queries, attention to the sound, feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = Attention(bias=False), Attention(bias=False)
        self.ffn = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, query: Tensor, sound: Tensor, *, materialise: bool) -> Tensor:
        """Args: query `[1 or N, 300, 256]`; sound `[N, 1, 256]`. Returns: `[N, 300, 256]`."""
        query = self.norm1(query + self.self_attn(query, query))
        attended = self.cross_attn(query, sound) if materialise else self.cross_attn.attend_single(sound)
        query = self.norm2(query + attended)
        result: Tensor = self.norm3(query + self.ffn(query))
        return result


class QueryGenerator(nn.Module):
    """The queries of each frame: a learnt table that six layers adapt to its sound."""

    def __init__(self, *, materialise: bool) -> None:
        super().__init__()
        self.query = nn.Embedding(QUERIES, WIDTH)
        self.layers = nn.ModuleList(QueryLayer() for _ in range(6))
        self.materialise = materialise

    def forward(self, sound: Tensor) -> Tensor:
        """`[N, 1, 256]` to `[N, 300, 256]`."""
        query = self.query.weight[None]
        if self.materialise:
            query = query.expand(sound.shape[0], -1, -1)
        for layer in self.layers:
            query = layer(query, sound, materialise=self.materialise)
        return query


class FeedForwardLayer(nn.Module):
    """The feed-forward part that layers of the transformer end with."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(WIDTH, 8 * WIDTH), nn.Linear(8 * WIDTH, WIDTH)

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """`[N, Q, 256]` to the same."""
        expanded: Tensor = self.linear2(F.gelu(self.linear1(tokens)))
        return expanded


class EncoderLayer(FeedForwardLayer):
    """Deformable attention among all cells of three levels, feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(WIDTH, HEADS)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor, position: Tensor, sizes: Sizes) -> Tensor:
        """Args: tokens `[N, S, 256]`; position `[S, 256]`. Returns: `[N, S, 256]`."""
        tokens = self.norm1(tokens + self.self_attn(tokens + position, tokens, sizes))
        result: Tensor = self.norm2(tokens + self.feed_forward(tokens))
        return result


class DecoderLayer(FeedForwardLayer):
    """Attention among queries, attention to the encoder's cells, feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = Attention(bias=True), Attention(bias=True)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """Args: query `[N, 300, 256]`; memory `[N, S, 256]`. Returns: `[N, 300, 256]`."""
        query = self.norm1(query + self.self_attn(query, query))
        query = self.norm2(query + self.cross_attn(query, memory))
        result: Tensor = self.norm3(query + self.feed_forward(query))
        return result


class Layers(nn.Module):
    """A list of layers, under the name that the publication gives it."""

    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer() for _ in range(6))


class Transformer(nn.Module):
    """The encoder over cells and the decoder over queries."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Layers(EncoderLayer), Layers(DecoderLayer)

    def forward(self, query: Tensor, tokens: Tensor, position: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Returns: the encoder's cells `[N, S, 256]` and the decoded queries `[N, 300, 256]`."""
        for layer in self.encoder.layers:
            tokens = layer(tokens, position, sizes)
        for layer in self.decoder.layers:
            query = layer(query, tokens)
        return tokens, query


class ChannelMixer(nn.Module):
    """Weigh the channels of the mask feature by what the sound finds in it."""

    def __init__(self, *, materialise: bool) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.kv_proj = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.materialise = materialise

    def forward(self, feature: Tensor, sound: Tensor) -> Tensor:
        """Args: feature `[N, 256, h, w]`; sound `[N, 1, 256]`. Returns: `[N, 256, h, w]`."""
        query = self.q_proj(sound).unflatten(2, (HEADS, -1)).transpose(1, 2)  # [N, heads, 1, 32]
        if self.materialise:
            pairs = self.kv_proj(feature.flatten(2).transpose(1, 2)).unflatten(2, (2, HEADS, -1))
            key, value = pairs.permute(2, 0, 3, 1, 4).unbind()  # [N, heads, h * w, 32]
            attended = F.scaled_dot_product_attention(query, key, value)
        else:  # both projections are linear: put before and after the sum over positions, they act on one row per head
            key, value = self.kv_proj.weight.unflatten(0, (2, HEADS, -1)).unbind()  # [heads, 32, 256]
            cells = feature.flatten(2)
            scores = torch.matmul(torch.matmul(query, key)[:, :, 0], cells) * (WIDTH // HEADS) ** -0.5
            pooled = torch.matmul(scores.softmax(dim=-1), cells.transpose(1, 2))  # [N, heads, 256]
            attended = torch.matmul(pooled[:, :, None], value.transpose(1, 2))  # [N, heads, 1, 32]
        gate = torch.sigmoid(self.proj(attended.flatten(1)))
        return feature * gate[:, :, None, None]


class MaskMlp(nn.Module):
    """Three 1 x 1 convolutions over the products of queries and mask feature."""

    def __init__(self, *, materialise: bool) -> None:
        super().__init__()
        widths = (QUERIES, 2048, 2048, WIDTH)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(widths))
        self.materialise = materialise

    def forward(self, query: Tensor, feature: Tensor) -> Tensor:
        """Args: query `[N, 300, 256]`; feature `[N, 256, h, w]`. Returns: `[N, 256, h, w]`."""
        first, second, third = self.layers
        cells = feature.flatten(2)
        if self.materialise:
            hidden = first(torch.matmul(query, cells).unflatten(2, feature.shape[2:]))
        else:  # the first convolution mixes queries, so it may come before the product with every position
            mixed = torch.matmul(first.get_parameter("weight")[:, :, 0, 0], query)  # [N, 2048, 256]
            hidden = torch.matmul(mixed, cells).unflatten(2, feature.shape[2:])
            hidden = hidden + first.get_parameter("bias")[:, None, None]
        result: Tensor = third(F.relu(second(F.relu(hidden))))
        return result


def sine_positions(height: int, width: int) -> np.ndarray:
    """Sines and cosines of each cell's row, then of its column, counted from 1: float32 `[height * width, 256]`."""
    frequency = 10000.0 ** (-np.arange(WIDTH // 4) / (WIDTH // 4))
    rows, columns = np.mgrid[1 : height + 1, 1 : width + 1].reshape(2, -1, 1) * frequency
    parts = [np.stack([np.sin(phase), np.cos(phase)], axis=-1).reshape(height * width, -1) for phase in (rows, columns)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _conv_norm(in_channels: int, kernel: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, WIDTH, kernel, padding=kernel // 2)
    return nn.Sequential(convolution, nn.GroupNorm(32, WIDTH))


class Head(nn.Module):
    """Everything behind the encoder."""

    def __init__(self, channels: tuple[int, ...], classes: int, *, materialise: bool) -> None:
        super().__init__()
        self.in_proj = nn.ModuleList(_conv_norm(count) for count in channels)
        self.level_embed = nn.Parameter(torch.randn(3, WIDTH))
        self.query_generator = QueryGenerator(materialise=materialise)
        self.learnable_query = nn.Embedding(QUERIES, WIDTH)
        self.transformer = Transformer()
        self.lateral_conv = _conv_norm(WIDTH)
        self.out_conv = nn.Sequential(*_conv_norm(WIDTH, 3), nn.ReLU())
        self.fusion_block = ChannelMixer(materialise=materialise)
        self.mlp = MaskMlp(materialise=materialise)
        self.fc = nn.Sequential(
            nn.Conv2d(WIDTH, 128, 3, padding=1),
            nn.Upsample(scale_factor=4.0, mode="bilinear", align_corners=False),
            nn.Conv2d(128, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, classes, 1, bias=False),
        )

    def forward(self, encoded: list[Tensor], sound: Tensor) -> AvSegFormerStages:
        """Args: four maps `[N, C_i, h, w]`; sound `[N, 1, 256]`. Logits of the result: `[N, classes, H, W]`."""
        projected = [project(stage) for project, stage in zip(self.in_proj, encoded, strict=True)]
        finest, levels = projected[0], projected[1:]
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        embedded = zip(sizes, self.level_embed, strict=True)
        position = torch.cat([torch.tensor(sine_positions(*size)) + embedding for size, embedding in embedded])

        query = self.query_generator(sound)
        memory, decoded = self.transformer(query + self.learnable_query.weight, tokens, position, sizes)
        level = memory[:, : sizes[0][0] * sizes[0][1]].transpose(1, 2).unflatten(2, sizes[0])
        level = F.interpolate(level, finest.shape[2:], mode="bilinear", align_corners=False)
        feature = self.fusion_block(self.out_conv(level + self.lateral_conv(finest)), sound)
        logits = self.fc(feature + self.mlp(decoded, feature))
        return AvSegFormerStages(encoded, projected, query, memory, decoded, feature, logits)


class AvSegFormer(Network):
    """The network; see the module's docstring. Any T, any H and W that are multiples of 32.

    The released loaders of S4 and MS3 resize frames to 512 x 512, that of AVSS to 224 x 224. The parts of a checkpoint
    that nothing calls (`head.attn_fc`, `head.fpn`, and with ResNet-50 the second branch of its encoder) are left out.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self.encoder = Encoder(variant.encoder)
        self.audio_proj = nn.Linear(AUDIO_WIDTH, WIDTH)
        self.head = Head(self.encoder.channels, variant.classes, materialise=variant.form == "published")

    def forward(self, frames: Tensor, audio: Tensor) -> Tensor:
        """Segment clips.

        Args:
            frames: `[B, T, 3, H, W]`, scaled to [0, 1] and normalised with ImageNet's mean and deviation.
            audio: audio embeddings `[B, T, 128]` of VGGish.

        Returns:
            logits `[B, T, H, W]`; with several classes, of which the first is the background, `[B, T, classes, H, W]`.

        Raises:
            ClipShapeError: a shape that the network cannot work with.
        """
        return self.forward_stages(frames, audio).logits

    def forward_stages(self, frames: Tensor, audio: Tensor) -> AvSegFormerStages:
        """As `forward`, with what is computed on the way."""
        check_clip(frames, audio, min_frames=1)
        stages: AvSegFormerStages = self.head(
            self.encoder(frames.flatten(0, 1)), self.audio_proj(audio.flatten(0, 1))[:, None]
        )
        logits = stages.logits.unflatten(0, (-1, frames.shape[1]))
        stages.logits = logits[:, :, 0] if self.variant.classes == 1 else logits
        return stages

    def probability(self, logits: Tensor) -> Tensor:
        """The probability `[B, T, H, W]` that a pixel sounds; of several classes, that it is not background."""
        return torch.sigmoid(logits) if self.variant.classes == 1 else 1 - logits.softmax(dim=-3)[..., 0, :, :]
