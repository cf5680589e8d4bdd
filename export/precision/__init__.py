"""Precision as part of the ONNX graph: which node computes in which type, and the graphs that follow from it."""
