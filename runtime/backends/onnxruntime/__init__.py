"""ONNX Runtime: the backend, its execution providers and our operator library."""
