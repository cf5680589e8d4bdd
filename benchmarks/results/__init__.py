"""Measured rows: their schema, files, statistics and comparison; the committed rows."""
