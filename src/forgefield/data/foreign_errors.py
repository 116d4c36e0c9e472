"""What an exception of another library says, cut to one line for our messages."""

from __future__ import annotations

LONGEST = 200


def reason(error: BaseException) -> str:
    """Return the first line of an exception's text, or its kind where it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:LONGEST]
