"""Attention maps of a bundle's network in a video, and slices of the correlation volume."""
