"""The user errors of training and evaluation."""

from avsbg.errors import AvsbgError


class DatasetError(AvsbgError):
    """Data that is missing, cannot be read, or is not laid out as AVSBench lays it out."""


class TrainingError(AvsbgError):
    """A training run that cannot start, go on, or be resumed."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type's name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
