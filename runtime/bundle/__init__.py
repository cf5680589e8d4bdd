"""The bundle's file format: reading, hash checks, validation and atomic updates."""

from avsbg.runtime.bundle.bundle import Bundle, Vectors, sha256
from avsbg.runtime.bundle.writer import BundleUpdate, BundleWriter, update_bundle, write_bundle

__all__ = ["Bundle", "BundleUpdate", "BundleWriter", "Vectors", "sha256", "update_bundle", "write_bundle"]
