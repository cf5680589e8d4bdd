"""Start the node: ros2 launch sounding sounding.launch.py bundle:=/opt/avsbg/bundle image:=/camera/image_raw."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

DEFAULTS = {"bundle": "/opt/avsbg/bundle", "image": "/camera/image_raw", "audio": "/audio_stamped"}


def generate_launch_description() -> LaunchDescription:
    """The node with its parameters, and its topics under the names of this robot."""
    parameters = Path(get_package_share_directory("sounding")) / "config/sounding.yaml"
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value) for name, value in DEFAULTS.items()),
            Node(
                package="sounding",
                executable="node",
                name="sounding",
                parameters=[str(parameters), {"bundle": LaunchConfiguration("bundle")}],
                remappings=[(topic, LaunchConfiguration(topic)) for topic in ("image", "audio")],
            ),
        ]
    )
