"""From a source to masks on disk."""
