"""The plugin in a real TensorRT registry, parser and builder: TensorRT for RTX builds engines without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from avsbg.export.engine.builder import ParseError, parse_onnx
from avsbg.native_library import NativeLibraryError, native_library
from avsbg.runtime.backends.tensorrt.engine import PLUGIN_OPERATORS, load_plugin
from avsbg.runtime.backends.tensorrt.logger import message_log
from avsbg.runtime.backends.tensorrt.rtx import import_tensorrt_rtx

pytestmark = pytest.mark.engine

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: pip install 'avsbg[rtx]'")

STAGES = (56 * 56, 28 * 28, 14 * 14, 7 * 7)
CHANNELS = 128


@pytest.fixture(scope="module")
def trt():
    return import_tensorrt_rtx()


@pytest.fixture(scope="module")
def plugin() -> Path:
    try:
        return native_library("tensorrt").path
    except NativeLibraryError as error:
        pytest.skip(str(error))


@pytest.fixture
def builder(trt):
    return trt.Builder(message_log(trt))


def save_network(
    folder: Path,
    operator: str = "MeanCorrelation",
    *,
    dtype: int = TensorProto.FLOAT,
    b_dtype: int | None = None,
    a_shape: tuple[int | str, ...] | None = None,
    version: str = "1",
    outputs: int | None = None,
    **attributes: object,
) -> Path:
    """A network of four nodes, one for each stage of the networks, with a dynamic number of pairs."""
    nodes, inputs, results = [], [], []
    if outputs is None:
        outputs = 2 if operator == "MeanCorrelation" else 1
    for stage, positions in enumerate(STAGES):
        shape = ("pairs", positions, CHANNELS)
        inputs.append(helper.make_tensor_value_info(f"a{stage}", dtype, a_shape or shape))
        inputs.append(helper.make_tensor_value_info(f"b{stage}", b_dtype or dtype, shape))
        names = [f"{output}{stage}" for output in ("first", "second")[:outputs]]
        nodes.append(
            helper.make_node(
                operator,
                [f"a{stage}", f"b{stage}"],
                names,
                name=f"stage{stage}",
                domain="avsbg",
                plugin_version=version,
                plugin_namespace="",
                **attributes,
            )
        )
        results += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("avsbg", 1)]
    model = helper.make_model(helper.make_graph(nodes, "stages", inputs, results), opset_imports=opsets, ir_version=9)
    path = folder / "stages.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def parse(trt, builder, path: Path):
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parse_onnx(trt, network, path)
    return network


def build(trt, builder, network) -> bytes | None:
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        profile.set_shape(tensor.name, *[(pairs, *tuple(tensor.shape)[1:]) for pairs in (1, 4, 16)])
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    return None if engine is None else bytes(engine)


def test_the_library_loads_and_brings_its_operators(builder, plugin):
    registry = builder.get_plugin_registry()
    assert load_plugin(registry) == plugin
    found = {(creator.name, creator.plugin_version, creator.plugin_namespace) for creator in registry.all_creators}
    assert found >= {(operator, "1", "") for operator in PLUGIN_OPERATORS}
    assert load_plugin(registry) == plugin  # a second time changes nothing


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("MeanCorrelation", {"mean_b": 1, "tf32": 0}), ("MeanCorrelation", {}), ("CorrelationVolume", {"relu": 1})],
)
def test_four_nodes_with_dynamic_shapes_build_into_an_engine(
    trt, builder, plugin, tmp_path, operator, dtype, attributes
):
    load_plugin(builder.get_plugin_registry())
    with message_log(trt).collect() as messages:
        network = parse(trt, builder, save_network(tmp_path, operator, dtype=dtype, **attributes))
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        assert [layer.type for layer in layers] == [trt.LayerType.PLUGIN_V3] * len(STAGES)
        for stage, positions in enumerate(STAGES):
            outputs = [layers[stage].get_output(index) for index in range(layers[stage].num_outputs)]
            expected = [(-1, positions)] * 2 if operator == "MeanCorrelation" else [(-1, positions, positions)]
            assert [tuple(output.shape) for output in outputs] == expected
            assert {output.dtype for output in outputs} == {trt.DataType.FLOAT}
        engine = build(trt, builder, network)
    assert not [message.text for message in messages if message.text.startswith("avsbg ")]
    assert engine is not None
    assert engine.count(operator.encode()) >= len(STAGES)


def test_one_output_is_said_with_an_attribute(trt, builder, plugin, tmp_path):
    load_plugin(builder.get_plugin_registry())
    network = parse(trt, builder, save_network(tmp_path, outputs=1, mean_b=0))
    assert network.num_outputs == len(STAGES)
    assert build(trt, builder, network) is not None


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"version": "2"}, ["MeanCorrelation", "Plugin not found", "plugin_version: 2", "plugin_version '1'"]),
        ({"operator": "CorrelationVolume", "relu": 2}, ["stage0", "attribute relu is 2", "0 or 1"]),
        ({"operator": "CorrelationVolume", "relu": "yes"}, ["stage0", "attribute relu is not an integer"]),
        ({"a_shape": ("pairs", 56, 56, CHANNELS)}, ["stage0", "input a has rank 4", "[pairs, positions, channels]"]),
        ({"a_shape": ("pairs", 3136, 64)}, ["stage0", "64 channels", "b has 128"]),
        ({"dtype": TensorProto.INT32}, ["stage0", "a and b are int32 and int32", "all float16 or all bfloat16"]),
        ({"b_dtype": TensorProto.FLOAT16}, ["stage0", "a and b are float32 and float16"]),
    ],
    ids=["version", "value", "type of attribute", "rank", "channels", "dtype", "mixed dtypes"],
)
def test_a_wrong_node_is_refused_with_its_cause(trt, builder, plugin, tmp_path, faults, said):
    load_plugin(builder.get_plugin_registry())
    with pytest.raises(ParseError) as refusal:
        parse(trt, builder, save_network(tmp_path, **faults))
    for part in said:
        assert part in str(refusal.value)


def test_unsupported_channels_end_the_build_with_the_value(trt, builder, plugin, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "CHANNELS", 12)
    load_plugin(builder.get_plugin_registry())
    network = parse(trt, builder, save_network(tmp_path))
    with message_log(trt).collect() as messages:
        assert build(trt, builder, network) is None
    assert any("C = 12" in message.text and message.text.startswith("avsbg ") for message in messages)


def test_messages_arrive_when_the_registry_that_loaded_last_is_gone(trt, builder, plugin, tmp_path):
    load_plugin(builder.get_plugin_registry())
    load_plugin(trt.Builder(message_log(trt)).get_plugin_registry())
    with pytest.raises(ParseError, match=r"avsbg CorrelationVolume .*attribute relu is 2"):
        parse(trt, builder, save_network(tmp_path, operator="CorrelationVolume", relu=2))


def test_without_the_library_the_message_says_what_to_load(trt, builder, plugin, tmp_path):
    with pytest.raises(ParseError, match=r"Load the plugin library before parsing .*load_plugin"):
        parse(trt, builder, save_network(tmp_path))


def test_libraries_that_are_no_plugin_are_refused_with_the_reason(builder, plugin, tmp_path):
    registry = builder.get_plugin_registry()
    with pytest.raises(NativeLibraryError, match=r"no plugin library .*absent\.so"):
        load_plugin(registry, tmp_path / "absent.so")
    text = tmp_path / "text.so"
    text.write_text("not a library")
    with pytest.raises(NativeLibraryError, match=r"text\.so cannot be used: .*(ELF|file too short)"):
        load_plugin(registry, text)
    other = native_library("onnxruntime").path
    with pytest.raises(NativeLibraryError, match=r"exports no getCreators"):
        load_plugin(registry, other)
