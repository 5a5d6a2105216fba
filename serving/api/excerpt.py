"""Text of a caller, as messages and logs show it: short, one line, all of it printable."""

from __future__ import annotations

# Enough for a model ID, a path or a field to be recognized.
EXCERPT_CHARS = 100


def excerpt(text: str, limit: int = EXCERPT_CHARS) -> str:
    """The beginning of `text`, and how much is left out; what cannot be printed is `?`. The
    characters that end a line, move a cursor or turn the direction of writing are such."""
    shown = text[:limit]
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else "?" for char in shown)
    left = len(text) - limit
    return f"{shown}... ({left} more)" if left > 0 else shown
