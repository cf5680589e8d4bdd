"""The user errors of training and evaluation."""

from avsbg.errors import AvsbgError


class DatasetError(AvsbgError):
    """Data that is missing, cannot be read, or is not laid out as AVSBench lays it out."""


class TrainingError(AvsbgError):
    """A training run that cannot start, go on, or be resumed."""
