"""Counts that need no run: operations, nodes, bytes, instructions; peaks of devices that are not here."""
