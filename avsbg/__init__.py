"""avsbg: audio-visual segmentation networks, from a PyTorch checkpoint to an NVIDIA edge device."""

__version__ = "0.1.0"
