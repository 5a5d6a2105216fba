"""About how many tokens something has, where nobody has counted them: a prompt before its engine
has, and what a hosted provider has written but not said."""

from __future__ import annotations

from typing import Any

# A token of English has four letters.
BYTES_PER_TOKEN = 4
# An image's bytes say nothing of its tokens.
IMAGE, IMAGE_TOKENS = b";base64,", 2048
# Strings of an answer that no model has written.
_LABELS = frozenset({"id", "call_id", "type", "role", "signature", "encrypted_content"})


def prompt_tokens(body: bytes, context: int | None = None) -> int:
    """Of a request's body; `context` is the most that a prompt can have."""
    tokens = 1 + len(body) // BYTES_PER_TOKEN
    if tokens > IMAGE_TOKENS and IMAGE in body:
        tokens = IMAGE_TOKENS
    return tokens if context is None else min(tokens, context)


def written(part: Any) -> int:
    """Bytes that a model has written in a part of an answer, which is JSON."""
    if isinstance(part, str):
        return len(part.encode("utf-8", "surrogatepass"))
    if isinstance(part, dict):
        return sum(written(value) for name, value in part.items() if name not in _LABELS)
    if isinstance(part, list):
        return sum(map(written, part))
    return 0
