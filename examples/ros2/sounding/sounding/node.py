"""The node `sounding`: images and sound in, masks of what sounds out.

Subscribes to `image` (sensor_msgs/Image: rgb8, bgr8 or mono8) and `audio` (audio_common_msgs/AudioDataStamped).
Publishes `~/mask` (mono8, 255 where it sounds) and `~/overlay` (rgb8) with the header of the image that they are of.
The stamps decide which sound belongs to which image: both have to be of one clock.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import numpy as np
import rclpy
from audio_common_msgs.msg import AudioDataStamped
from PIL import Image as Picture
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

import avsbg
from avsbg.errors import AvsbgError
from avsbg.runtime.segment.overlay import tint
from avsbg.runtime.streaming.threaded import ThreadedStream
from sounding.sound import SoundReader

PARAMETERS = {
    "bundle": "",
    "backend": "auto",
    "rate": 1.0,
    "threshold": 0.5,
    "audio_rate": 16000,
    "audio_channels": 1,
    "audio_format": "S16LE",
}
# The images that wait for their masks: the network's queue, and the one or two that it holds itself.
_KEPT = 16


class SoundingNode(Node):  # type: ignore[misc]  # of a library without types
    """See the module. `policy` is what a queue that is full does: `drop-oldest`, or `block` for recordings."""

    def __init__(self, policy: str = "drop-oldest") -> None:
        super().__init__("sounding")
        options = {name: self.declare_parameter(name, default).value for name, default in PARAMETERS.items()}
        self._period, self._threshold = 1.0 / options["rate"], options["threshold"]
        self._next: float | None = None
        self._images: dict[float, tuple[Any, np.ndarray]] = {}  # by time stamp, oldest first
        self._lock = threading.Lock()
        self._stack = ExitStack()
        model = self._stack.enter_context(avsbg.load(options["bundle"], options["backend"]))
        rate = model.bundle.manifest.clip.sample_rate
        self._sound = SoundReader(options["audio_format"], options["audio_channels"], options["audio_rate"], rate)
        stream = self._stack.enter_context(model.stream())
        self._live = self._stack.enter_context(ThreadedStream(stream, capacity=_KEPT // 2, policy=policy))
        self._mask = self.create_publisher(Image, "~/mask", 10)
        self._overlay = self.create_publisher(Image, "~/overlay", 10)
        self.create_subscription(Image, "image", self.take_image, qos_profile_sensor_data)
        self.create_subscription(AudioDataStamped, "audio", self.take_audio, qos_profile_sensor_data)
        self._thread = threading.Thread(target=self._publish_masks, daemon=True)
        self._thread.start()

    def take_image(self, message: Any) -> None:
        """Pass an image to the network, if its turn has come."""
        time = seconds(message.header.stamp)
        if self._next is not None and time < self._next:
            return
        try:
            pixels = pixels_of(message)
        except ValueError as error:
            self.get_logger().error(str(error))
            return
        self._next = time + self._period * 0.999  # stamps jitter
        with self._lock:
            self._images[time] = (message.header, pixels)
            for old in list(self._images)[:-_KEPT]:
                del self._images[old]
        self._live.push(pixels, timestamp=time)

    def take_audio(self, message: Any) -> None:
        """Pass sound to the network."""
        for samples, time in self._sound.read(bytes(message.audio.data), seconds(message.header.stamp)):
            self._live.push_sound(samples, time)

    def finish(self) -> None:
        """Publish the last masks, and close the network."""
        self._live.finish()
        self._thread.join()
        self._stack.close()

    def _publish_masks(self) -> None:
        try:
            for mask in self._live:
                with self._lock:
                    header, pixels = self._images.pop(mask.timestamp)
                small = Picture.fromarray((mask.probability > self._threshold).astype(np.uint8))
                sounds = np.asarray(small.resize(pixels.shape[1::-1], Picture.Resampling.NEAREST)) > 0
                self._mask.publish(message_of(header, sounds * np.uint8(255), "mono8"))
                self._overlay.publish(message_of(header, tint(pixels, sounds), "rgb8"))
        except AvsbgError as error:
            self.get_logger().fatal(str(error))


def seconds(stamp: Any) -> float:
    """A time stamp of ROS in seconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def pixels_of(message: Any) -> np.ndarray:
    """The pixels of an image as RGB, uint8 `[h, w, 3]`; a ValueError for an encoding that is none of the three."""
    channels = {"rgb8": 3, "bgr8": 3, "mono8": 1}.get(message.encoding)
    if channels is None:
        raise ValueError(f"images of encoding {message.encoding!r} are not taken; rgb8, bgr8 and mono8 are")
    rows = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    if message.encoding == "bgr8":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray(np.broadcast_to(pixels, (message.height, message.width, 3)))


def message_of(header: Any, pixels: np.ndarray, encoding: str) -> Any:
    """An image message of uint8 `[h, w]` or `[h, w, 3]`."""
    message = Image()
    message.header, message.encoding, message.is_bigendian = header, encoding, 0
    message.height, message.width = pixels.shape[:2]
    message.step = pixels.strides[0]
    message.data = pixels.tobytes()
    return message


def main() -> None:
    """Run the node until it is stopped."""
    rclpy.init()
    node = SoundingNode()
    try:
        rclpy.spin(node)
    finally:
        node.finish()
        node.destroy_node()
        rclpy.try_shutdown()
