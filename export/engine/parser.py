"""Parsing an ONNX file into a TensorRT network, with the causes of a failure in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avsbg.errors import AvsbgError
from avsbg.runtime.backends.tensorrt.logger import message_log
from avsbg.runtime.backends.tensorrt.plugin import NAMESPACE, OPERATORS, VERSION

# How the parser's log begins the line that names the plugin which a node asks for.
_CHECKING = "Checking if node can be treated as plugin: "


class ParseError(AvsbgError):
    """TensorRT's parser refuses a model."""


def parse_onnx(trt: Any, network: Any, path: Path) -> None:
    """Parse an ONNX file into `network`.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        network: an empty network definition, of a builder whose logger is `message_log(trt)`.
        path: the ONNX file; its external data is looked for beside it.

    Raises:
        ParseError: the parser refuses the model; the message has the node and what the plugin said of it.
    """
    parser = trt.OnnxParser(network, message_log(trt))
    with message_log(trt).collect() as messages:
        if parser.parse_from_file(str(path)):
            return
    ours = [message.text for message in messages if message.text.startswith("avsbg ")]
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    # What our plugin says is the cause; what the parser says of it after that is only that it failed.
    causes = ours or [f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}" for error in errors]
    missing = [error for error in errors if error.node_operator() in OPERATORS and "Plugin not found" in error.desc()]
    hint = None
    if missing:
        asked = next(message.text for message in messages if message.text.startswith(_CHECKING))
        hint = (
            f"Load the plugin library before parsing (avsbg.runtime.backends.tensorrt.plugin.load_plugin); it provides "
            f"plugin_version {VERSION!r} in plugin_namespace {NAMESPACE!r}. The node asked for "
            f"{asked.removeprefix(_CHECKING)}."
        )
    more = f" (and {len(causes) - 1} more)" if len(causes) > 1 else ""
    raise ParseError(f"TensorRT cannot parse {path}: {causes[0]}{more}", hint)
