"""User errors of the runtime; each names the offending value and says what to do next."""

from avsbg.errors import AvsbgError


class BundleError(AvsbgError):
    """A bundle is missing, incomplete, altered, or its manifest is not valid."""


class BackendError(AvsbgError):
    """A backend cannot do what it was asked for, or was given arrays that the graph does not take."""


class MediaError(AvsbgError):
    """A video cannot be read, or lacks what the network needs."""


class WorkerError(AvsbgError):
    """A process that does a part of the work has crashed."""


class OutputError(MediaError):
    """An output cannot be written, e.g. on a full disk."""


class FetchError(MediaError):
    """A file could not be fetched or read, for a reason that may pass: of its disk, network or server."""


class EmptySourceError(MediaError):
    """A source ended before a second of it was complete."""
