"""Measurements: latency, memory, operations, accuracy, streams."""
