"""Files, cameras and network addresses, read as samples: a frame and its sound."""
