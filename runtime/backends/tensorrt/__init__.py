"""TensorRT and TensorRT for RTX: engines, execution contexts, memory and our plugin."""
