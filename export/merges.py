"""Neighbouring linear operations of a graph that one smaller operation can compute, with the same result.

Merged are patterns, not names of modules, and only where the operations fall:

- **An enlarged map under a 3 x 3 convolution.** Every pixel of a map that was enlarged to twice its size (nearest
  neighbour) stands there four times, so the kernel sees at most 2 x 2 different ones. A 2 x 2 convolution of the small
  map, with the weights of equal pixels added, computes each pixel of a 2 x 2 block as channels of its own: 4 products
  instead of 9. DepthToSpace puts the blocks in place. What is pointwise and comes next (ReLU, a 1 x 1 convolution to
  fewer channels) is computed while the pixels are still channels.
- **A k x k convolution under a 1 x 1 convolution to one channel.** Together they are one k x k convolution to one
  channel, which engines compute in vectors of eight or sixteen channels, the others unused. So it is taken apart by
  columns: a k x 1 convolution computes a channel for each column of the kernel, and a 1 x k convolution with weights of
  0 and 1 adds these up, each shifted by its column.

Both are exact but for the order of sums, zero padding included. The network's own parameters are handed back, so that
they can be kept beside the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from avsbg.export.editor import GraphEditor
from avsbg.runtime.bundle.manifest import MergeRecord

Array = NDArray[np.float32]
_Kind = Literal["enlarged map", "one channel by columns"]
# A merged weight's name is that of the parameter in whose place it is, with this appended.
MERGED = ".merged"


@dataclass(frozen=True)
class Merges:
    """The merges of a graph, the names of its weights now, and the parameters that it no longer holds, by name."""

    weights: list[str]
    records: tuple[MergeRecord, ...] = ()
    replaced: dict[str, Array] = field(default_factory=dict)


def merge(model: ir.Model, weights: list[str]) -> Merges:
    """Merge what can be merged, in place. Nodes keep their names, and the values that other nodes read keep theirs.

    The model is an optimised graph, with the shapes of its values; `weights` are the names of its weights.
    """
    merger = _Merger(model.graph, set(weights))
    for node in list(model.graph):
        merger.columns(node)
        merger.enlarged(node)
    merger.editor.drop_unused_weights()
    held = [name for name in weights if name not in merger.replaced]
    return Merges([*held, *merger.merged], tuple(merger.records), merger.replaced)


def block_kernel(weight: Array) -> Array:
    """`[O, C, 3, 3]`, for the enlarged map, to `[4 * O, C, 2, 2]`, for the small one.

    Output i of the small convolution, padded by 1, holds the pixels 2i - 1 and 2i of the large map along each axis:
    lower right of one block of equal pixels to upper left of the next. So the odd pixel comes first.
    """
    kernels = [_add_taps(_add_taps(weight, 2, first), 3, second) for first in (0, 1) for second in (0, 1)]
    return np.concatenate(kernels)


def column_kernels(kernel: Array, mixing: Array) -> tuple[Array, Array]:
    """Kernels `[O, C, k, k]` and `[1, O, 1, 1]` as one by columns, `[k, C, k, 1]`, and their sum, `[1, k, 1, k]`."""
    together = np.einsum("o,ocij->jci", mixing[0, :, 0, 0].astype(np.float64), kernel)
    size = len(together)
    return together.astype(np.float32)[..., None], np.eye(size, dtype=np.float32).reshape(1, size, 1, size)


def block_diagonal(weight: Array) -> Array:
    """A 1 x 1 convolution `[O, C, 1, 1]` for each of 4 pixels that are channels: `[4 * O, 4 * C, 1, 1]`."""
    return np.kron(np.eye(4, dtype=np.float32), weight[:, :, 0, 0])[:, :, None, None]


def _add_taps(weight: Array, axis: int, first: int) -> Array:
    """Three taps along an axis as two: `first` and the next one are added."""
    taps = np.moveaxis(weight, axis, 0)
    return np.stack((taps[0] + taps[1], taps[2]) if first == 0 else (taps[0], taps[1] + taps[2]), axis=axis)


class _Merger:
    def __init__(self, graph: ir.Graph, weights: set[str]) -> None:
        self.editor = GraphEditor(graph)
        self._graph, self._weights = graph, weights
        self.records: list[MergeRecord] = []
        self.replaced: dict[str, Array] = {}
        self.merged: list[str] = []
        self._names = Counter(str(node.name) for node in graph)
        self._window: tuple[ir.Value, ...] | None = None

    def enlarged(self, convolution: ir.Node) -> None:
        """Compute a 3 x 3 convolution of an enlarged map on the small one."""
        source = convolution.inputs[0] if convolution.inputs else None
        resize = source.producer() if source is not None else None
        if resize is None or not self._is_convolution(convolution, (3, 3)) or not _doubles(resize):
            return
        small, large = resize.inputs[0], resize.outputs[0]
        if small is None or _only_user(large) is not convolution:
            return
        height, width = _size(small)
        chain = self._pointwise(convolution)
        # The row and the column too many, and the zeros beside a diagonal, may weigh more than what is saved.
        while chain and _as_blocks(chain, height, width) >= _as_pixels(chain, height, width):
            chain.pop()
        if not chain:
            return
        before, after = _as_pixels(chain, height, width), _as_blocks(chain, height, width)
        convolution.replace_input_with(0, small)
        self._graph.remove(resize, safe=True)
        replaced: list[str] = []
        for node in chain:
            if node.op_type == "Conv":
                weight = self._parameter(node, 1)
                replaced += self._replace(
                    node, 1, block_kernel(weight) if node is convolution else block_diagonal(weight)
                )
                if len(node.inputs) > 2:
                    replaced += self._replace(node, 2, np.tile(self._parameter(node, 2), 4))
            channels = _channels(node.outputs[0])
            _reshape(node.outputs[0], 4 * channels, height + 1, width + 1)
        convolution.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [2, 2])
        self._put_in_place(chain, 2 * height, 2 * width)
        self._record("enlarged map", [resize, *chain], replaced, before, after)

    def columns(self, convolution: ir.Node) -> None:
        """Compute a k x k and a 1 x 1 convolution to one channel by the columns of their product."""
        if convolution.op_type != "Conv" or len(convolution.inputs) > 2:  # a bias would be added before the mixing
            return
        mixing = _only_user(convolution.outputs[0])
        if mixing is None or not self._is_convolution(mixing, (1, 1)) or len(mixing.inputs) > 2:
            return
        shape = _weight_shape(convolution)
        if len(shape) != 4 or shape[0] == 1 or _weight_shape(mixing)[0] != 1:
            return
        size = shape[2]
        if size == 1 or size % 2 == 0 or not self._is_convolution(convolution, (size, size)):
            return
        height, width = _size(convolution.outputs[0])
        pair = (convolution, mixing)
        before = sum(_operations(node, height * width) for node in pair)
        kernels = column_kernels(self._parameter(convolution, 1), self._parameter(mixing, 1))
        replaced: list[str] = []
        margin = size // 2
        windows = (((size, 1), (margin, 0)), ((1, size), (0, margin)))
        for node, kernel, (window, margins) in zip(pair, kernels, windows, strict=True):
            replaced += self._replace(node, 1, kernel)
            node.attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", window)
            node.attributes["pads"] = ir.AttrInt64s("pads", margins * 2)
        _reshape(convolution.outputs[0], size, height, width)
        convolution.outputs[0].name = f"{convolution.outputs[0].name}.columns"
        after = sum(_operations(node, height * width) for node in pair)
        self._record("one channel by columns", pair, replaced, before, after)

    def _record(self, kind: _Kind, nodes: Iterable[ir.Node], parameters: list[str], before: int, after: int) -> None:
        operations = {"operations_before": before, "operations_after": after}
        names = tuple(str(node.name) for node in nodes)
        self.records.append(MergeRecord(kind=kind, nodes=names, parameters=tuple(parameters), **operations))

    def _is_convolution(self, node: ir.Node, kernel: tuple[int, int]) -> bool:
        """Whether a node is a convolution that keeps the size of its map, with parameters that nothing else reads."""
        if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or _size(node.outputs[0]) == (0, 0):
            return False
        attributes = node.attributes
        margins = [kernel[0] // 2, kernel[1] // 2]
        return (
            _weight_shape(node)[2:] == kernel
            and attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
            and attributes.get_int("group", 1) == 1
            and list(attributes.get_ints("strides", [1, 1])) == [1, 1]
            and list(attributes.get_ints("dilations", [1, 1])) == [1, 1]
            and list(attributes.get_ints("pads", [0, 0, 0, 0])) == margins * 2
            and all(self._is_own(value) for value in node.inputs[1:])
        )

    def _is_own(self, value: ir.Value | None) -> bool:
        return (
            value is not None
            and value.name in self._weights
            and value.const_value is not None
            and value.dtype is ir.DataType.FLOAT
            and len(value.uses()) == 1
        )

    def _pointwise(self, node: ir.Node) -> list[ir.Node]:
        """A node and what follows it that may be computed while four pixels are channels."""
        chain = [node]
        while (user := _only_user(chain[-1].outputs[0])) is not None:
            narrows = self._is_convolution(user, (1, 1)) and _weight_shape(user)[0] < _weight_shape(user)[1]
            if user.op_type != "Relu" and not narrows:
                break
            chain.append(user)
        return chain

    def _parameter(self, node: ir.Node, index: int) -> Array:
        value = node.inputs[index]
        assert value is not None and value.const_value is not None
        array: Array = value.const_value.numpy()
        return array

    def _replace(self, node: ir.Node, index: int, array: Array) -> list[str]:
        """Put a merged weight in the place of a parameter; returns the parameter's name."""
        old = node.inputs[index]
        assert old is not None
        name = str(old.name)
        self.replaced[name] = self._parameter(node, index)
        node.replace_input_with(index, self.editor.add_weight(f"{name}{MERGED}", np.ascontiguousarray(array)))
        self.merged.append(f"{name}{MERGED}")
        return [name]

    def _put_in_place(self, chain: list[ir.Node], height: int, width: int) -> None:
        """Turn the channels of a chain's last value into pixels, and cut off the row and column too many per side."""
        blocks = chain[-1].outputs[0]
        module = str(chain[0].name).rpartition("/")[0]
        channels = _channels(blocks) // 4
        shuffle = ir.node("DepthToSpace", [blocks], attributes={"blocksize": 2, "mode": "DCR"})
        cut = ir.node("Slice", [shuffle.outputs[0], *self._inner()])
        blocks.replace_all_uses_with(cut.outputs[0], replace_graph_outputs=True)
        shuffle.replace_input_with(0, blocks)
        for node, margin in ((shuffle, 2), (cut, 0)):
            node.name = self._unused(f"{module}/{node.op_type}" if module else node.op_type)
            node.outputs[0].type, node.outputs[0].shape = blocks.type, blocks.shape
            _reshape(node.outputs[0], channels, height + margin, width + margin)
        name = str(blocks.name)
        blocks.name, shuffle.outputs[0].name, cut.outputs[0].name = f"{name}.blocks", f"{name}.padded", name
        for node in chain[:-1]:
            node.outputs[0].name = f"{node.outputs[0].name}.blocks"
        self._graph.insert_after(chain[-1], [shuffle, cut])

    def _unused(self, name: str) -> str:
        """A name for a node, numbered where it is taken."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}_{self._names[name]}"

    def _inner(self) -> tuple[ir.Value, ...]:
        """Starts, ends and axes of a map without its outermost rows and columns."""
        if self._window is None:
            arrays = (np.array(numbers, np.int64) for numbers in ([1, 1], [-1, -1], [2, 3]))
            first = sum(name.startswith("constant.") for name in self._graph.initializers)
            self._window = tuple(
                self.editor.add_weight(f"constant.{number}", array) for number, array in enumerate(arrays, start=first)
            )
        return self._window


def _only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, once and as its first input; None if there are others, or it is an output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    use = next(iter(uses))
    return use.node if use.idx == 0 else None


def _doubles(node: ir.Node) -> bool:
    """Whether a node repeats every pixel of a map of known size twice along height and width."""
    if node.op_type != "Resize" or node.inputs[0] is None:
        return False
    (height, width), large = _size(node.inputs[0]), _size(node.outputs[0])
    attributes = node.attributes
    return (
        height * width > 0
        and large == (2 * height, 2 * width)
        and _channels(node.inputs[0]) == _channels(node.outputs[0])
        and "axes" not in attributes
        and attributes.get_string("mode", "nearest") == "nearest"
        and attributes.get_string("coordinate_transformation_mode", "half_pixel") == "asymmetric"
        and attributes.get_string("nearest_mode", "round_prefer_floor") == "floor"
    )


def _size(value: ir.Value) -> tuple[int, int]:
    """Height and width of a map `[N, C, h, w]`; zeros for anything else, or where C, h or w is not known."""
    sizes = [] if value.shape is None else [size for size in tuple(value.shape)[1:] if isinstance(size, int)]
    return (sizes[1], sizes[2]) if value.shape is not None and len(value.shape) == 4 and len(sizes) == 3 else (0, 0)


def _channels(value: ir.Value) -> int:
    channels = value.shape[1] if value.shape is not None else None
    assert isinstance(channels, int)
    return channels


def _reshape(value: ir.Value, *sizes: int) -> None:
    """Give a map `[N, C, h, w]` other sizes and leave N."""
    assert value.shape is not None
    value.shape = ir.Shape([value.shape[0], *sizes])


def _weight_shape(node: ir.Node) -> tuple[int, ...]:
    weight = node.inputs[1]
    if weight is None or weight.shape is None:
        return ()
    return tuple(size for size in weight.shape if isinstance(size, int))


def _as_pixels(chain: list[ir.Node], height: int, width: int) -> int:
    """Operations of a chain on the map that was enlarged from this size."""
    return sum(_operations(node, 4 * height * width) for node in chain)


def _as_blocks(chain: list[ir.Node], height: int, width: int) -> int:
    """Operations of the same chain with four pixels as channels: 16 weights for 9 of a 3 x 3 kernel, or for 1."""
    operations = [_operations(node, 16 * (height + 1) * (width + 1)) for node in chain]
    return operations[0] // 9 + sum(operations[1:])


def _operations(node: ir.Node, positions: int) -> int:
    """Of a convolution that computes so many positions; a multiply-add is two. Others count nothing."""
    return 2 * positions * int(np.prod(_weight_shape(node))) if node.op_type == "Conv" else 0
