"""The bundle's file format: reading, hash checks, validation and atomic updates."""
