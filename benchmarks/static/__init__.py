"""Counts that need no run: operations, compiled kernels, memory, engines, bounds."""
