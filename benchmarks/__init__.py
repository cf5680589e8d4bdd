"""Measurements of networks and bundles: parameters, operations, latency, memory, accuracy."""
