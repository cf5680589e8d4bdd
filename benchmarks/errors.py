"""The user errors of the benchmarks."""

from avsbg.errors import AvsbgError


class BenchmarkError(AvsbgError):
    """A comparison that cannot be made as asked, or results that cannot be read or published."""
