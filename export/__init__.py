"""Export: a network in PyTorch becomes a bundle of ONNX graphs that has been checked against it."""
