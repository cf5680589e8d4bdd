"""The one exception family that the command line turns into a paragraph and an exit code.

A leaf module: every part may import it, and it imports no other part.
"""


class AvsbgError(Exception):
    """A user's mistake, or an input that cannot be worked with.

    Args:
        message: what is wrong, naming the offending value.
        hint: what to do next; printed after the message.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message} {hint}")
        self.message = message
        self.hint = hint


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type's name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
