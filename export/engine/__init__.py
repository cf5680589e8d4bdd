"""TensorRT engines: built from a bundle's graphs, checked for the precision that they really have, and recorded."""
