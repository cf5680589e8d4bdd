"""What a bundle's network attends to in a video: its attention maps, and slices of the correlation volume."""
