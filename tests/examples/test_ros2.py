"""The ROS 2 example on a recorded bag: rosbags reads and writes the messages, a stub stands for the client library."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from avsbg.runtime.bundle import Bundle
from avsbg.runtime.segment.overlay import tint
from fixtures import ROOT

PACKAGE = ROOT / "examples/ros2/sounding"
FRAME_OFFSET = 15 / 16
START, RATE = 1_700_000_000, 16000
IMAGE, AUDIO = "sensor_msgs/msg/Image", "audio_common_msgs/msg/AudioDataStamped"
SIZE = (6, 4)  # width and height

store = get_typestore(Stores.ROS2_HUMBLE)
store.register(get_types_from_msg("uint8[] data\n", "audio_common_msgs/msg/AudioData"))
store.register(get_types_from_msg("std_msgs/Header header\naudio_common_msgs/AudioData audio\n", AUDIO))


class StubNode:
    """The part that the example uses of rclpy's Node: parameters, topics, a logger."""

    parameters: dict[str, Any] = {}  # noqa: RUF012  (set by the test, as a launch file does)

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscriptions: dict[str, tuple[type, Callable[[Any], None]]] = {}
        self.published: list[tuple[str, Any]] = []
        self.log: list[str] = []

    def declare_parameter(self, name: str, default: Any) -> Any:
        value = self.parameters.get(name, default)
        assert type(value) is type(default), f"parameter {name} has the type of its default"
        return SimpleNamespace(value=value)

    def create_publisher(self, kind: type, topic: str, _depth: int) -> Any:
        def publish(message: Any) -> None:
            assert isinstance(message, kind)
            self.published.append((topic.replace("~", f"/{self.name}"), message))

        return SimpleNamespace(publish=publish)

    def create_subscription(self, kind: type, topic: str, take: Callable[[Any], None], _qos: Any) -> None:
        self.subscriptions[f"/{topic}"] = (kind, take)

    def get_logger(self) -> Any:
        return SimpleNamespace(error=self.log.append, fatal=self.log.append)


class ImageMessage:
    """A sensor_msgs/Image: an attribute that it has not is an error, as with the real one."""

    __slots__ = ("data", "encoding", "header", "height", "is_bigendian", "step", "width")


@pytest.fixture
def node_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example's module on the stub."""
    modules = {
        "rclpy": {},
        "rclpy.node": {"Node": StubNode},
        "rclpy.qos": {"qos_profile_sensor_data": object()},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": ImageMessage},
        "audio_common_msgs": {},
        "audio_common_msgs.msg": {"AudioDataStamped": SimpleNamespace},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(PACKAGE))
    for name in ("sounding", "sounding.node", "sounding.sound"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("sounding.node")


def sound_at(time: float) -> float:
    """The sound: +1 in even seconds, -1 in odd ones."""
    return 1.0 if int(time) % 2 == 0 else -1.0


def write_bag(path: Path, *, encoding: str = "rgb8", audio_rate: int = RATE, channels: int = 1) -> None:
    """Six seconds: four images a second, and a chunk of sound each tenth of one."""
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"]
    header = types["std_msgs/msg/Header"]
    messages: list[tuple[float, str, Any]] = []
    for k in range(24):
        time = k / 4
        pixels = np.full((SIZE[1], SIZE[0], 3), k, np.uint8)
        pixels[..., 0] = 2 * k
        stored = pixels[..., ::-1] if encoding == "bgr8" else pixels
        head = header(stamp(START + k // 4, k % 4 * 250_000_000), "camera")
        image = types[IMAGE](head, SIZE[1], SIZE[0], encoding, 0, SIZE[0] * 3, stored.reshape(-1))
        messages.append((time, "/image", image))
    for k in range(60):
        chunk = [sound_at((k * (audio_rate // 10) + n) / audio_rate) for n in range(audio_rate // 10)]
        samples = np.repeat(np.array(chunk) * 32767, channels).astype("<i2")
        head = header(stamp(START + k // 10, k % 10 * 100_000_000), "microphone")
        data = types["audio_common_msgs/msg/AudioData"](np.frombuffer(samples.tobytes(), np.uint8))
        messages.append((k / 10, "/audio", types[AUDIO](head, data)))
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kinds = {"/image": IMAGE, "/audio": AUDIO}
        topics = {name: writer.add_connection(name, kind, typestore=store) for name, kind in kinds.items()}
        for time, topic, message in sorted(messages, key=lambda one: one[:2]):
            nanoseconds = round((START + time) * 1e9)
            writer.write(topics[topic], nanoseconds, store.serialize_cdr(message, kinds[topic]))


def read_bag(path: Path) -> Iterator[tuple[str, Any]]:
    with Reader(path) as reader:
        for connection, _, data in reader.messages():
            yield connection.topic, store.deserialize_cdr(data, connection.msgtype)


def play(module: ModuleType, bag: Path, output: Path, parameters: dict[str, Any]) -> Any:
    """Play a bag to the node, and record what it publishes."""
    StubNode.parameters = parameters
    node = module.SoundingNode(policy="block")
    for topic, message in read_bag(bag):
        node.subscriptions[topic][1](message)
    node.finish()
    with Writer(output, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            name: writer.add_connection(name, IMAGE, typestore=store)
            for name in ("/sounding/mask", "/sounding/overlay")
        }
        for topic, message in node.published:
            fields = {name: getattr(message, name) for name in ImageMessage.__slots__}
            fields["data"] = np.frombuffer(fields["data"], np.uint8)
            stamp = message.header.stamp
            data = store.serialize_cdr(store.types[IMAGE](**fields), IMAGE)
            writer.write(topics[topic], stamp.sec * 10**9 + stamp.nanosec, data)
    return node


@pytest.mark.parametrize(
    ("bag", "parameters"),
    [
        ({}, {}),
        ({"encoding": "bgr8"}, {}),
        ({"audio_rate": 48000, "channels": 2}, {"audio_rate": 48000, "audio_channels": 2}),
    ],
)
def test_a_bag_in_and_masks_and_overlays_of_its_images_out(
    node_module: ModuleType, tiny_stream: Bundle, tmp_path: Path, bag: dict[str, Any], parameters: dict[str, Any]
) -> None:
    write_bag(tmp_path / "in", **bag)
    settings = {"bundle": str(tiny_stream.path), "backend": "onnxruntime", "rate": 2.0, **parameters}
    node = play(node_module, tmp_path / "in", tmp_path / "out", settings)
    assert not node.log
    recorded = list(read_bag(tmp_path / "out"))
    masks = [message for topic, message in recorded if topic == "/sounding/mask"]
    overlays = [message for topic, message in recorded if topic == "/sounding/overlay"]
    times = [message.header.stamp.sec - START + message.header.stamp.nanosec * 1e-9 for message in masks]
    assert times == [k / 2 for k in range(12)]  # two of the four images a second
    for time, mask, overlay in zip(times, masks, overlays, strict=True):
        begins = time - FRAME_OFFSET  # of the sound that belongs to the image
        sounds = begins >= 0 and sound_at(begins) > 0
        assert (mask.encoding, mask.width, mask.height, mask.step) == ("mono8", *SIZE, SIZE[0])
        assert (mask.data == (255 if sounds else 0)).all(), time
        pixels = np.full((SIZE[1], SIZE[0], 3), round(time * 4), np.uint8)
        pixels[..., 0] *= 2
        expected = tint(pixels, np.full(SIZE[::-1], sounds))
        assert overlay.encoding == "rgb8" and overlay.header.frame_id == "camera"
        assert (overlay.data == expected.reshape(-1)).all()


def test_an_encoding_that_is_not_taken_is_logged_and_the_node_goes_on(
    node_module: ModuleType, tiny_stream: Bundle, tmp_path: Path
) -> None:
    write_bag(tmp_path / "in", encoding="32FC1")
    node = play(
        node_module, tmp_path / "in", tmp_path / "out", {"bundle": str(tiny_stream.path), "backend": "onnxruntime"}
    )
    assert not node.published
    assert node.log[0] == "images of encoding '32FC1' are not taken; rgb8, bgr8 and mono8 are"


def test_the_package_and_its_files_say_the_same(node_module: ModuleType) -> None:
    """The facts that colcon and the launch file need: names, entry point, parameters."""
    package = ElementTree.parse(PACKAGE / "package.xml").getroot()
    assert package.findtext("name") == "sounding" and package.findtext("export/build_type") == "ament_python"
    assert '"node = sounding.node:main"' in (PACKAGE / "setup.py").read_text()
    text = (PACKAGE / "config/sounding.yaml").read_text()
    listed = [line.partition(":")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    assert listed == list(node_module.PARAMETERS)
    launch = (PACKAGE / "launch/sounding.launch.py").read_text()
    assert 'executable="node"' in launch and "config/sounding.yaml" in launch
