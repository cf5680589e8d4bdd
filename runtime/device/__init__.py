"""GPUs and native libraries of this machine."""
