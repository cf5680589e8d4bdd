"""TensorRT engines: built from a bundle's graphs, checked for their realised precision, and recorded."""
