"""Training and evaluation: AVSBench's data, the losses and metrics of both publications, recipes, and the loop."""
