"""Frame-by-frame inference: one encoder pass for each new frame."""
