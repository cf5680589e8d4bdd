"""The machine that a measurement ran on, and its sensors."""
