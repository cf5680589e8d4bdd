"""A ROS 2 node that segments what sounds."""
