"""The part that a device needs to run a bundle; imports neither torch nor onnx."""
