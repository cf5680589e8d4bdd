"""The bundle's file format: reading, hash checks, validation and atomic updates."""

from avsbg.runtime.bundle.bundle import Bundle, BundleWriter, Vectors, sha256, write_bundle

__all__ = ["Bundle", "BundleWriter", "Vectors", "sha256", "write_bundle"]
