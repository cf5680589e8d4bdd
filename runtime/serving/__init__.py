"""Serving: a bundle as a Triton model repository, the models that its Python backend runs, and a client."""
