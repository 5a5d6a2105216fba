"""What the ledger keeps of one admitted request."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One settled request. Tokens are those that the engine counted, whatever the request's end.

    New fields go to the end, with a default: journals of an older version are read too.

    Attributes:
        request_id: as the caller has it; a caller may choose it, so it is not unique.
        ended_at: when it was settled, in seconds since 1970 (UTC).
        account: whom it is charged to; empty if to nobody.
        key_id: the API key's public name.
        model: the model ID that was asked for, `served_model` the one that answered.
        engine: the engine model or hosted model that ran it.
        kind: the catalogue's word for the route: `engine`, `adapter` or `upstream`.
        outcome: `ok`, `error`, `cancelled` or `rejected`.
        usage_known: False if the engine died before it could say what was used (no tokens), or a
            hosted provider has not said it (a guess from the answer's length).
        cached_tokens: those of `prompt_tokens` that were in the engine's cache.
        queue_s: from the engine's first sight of it to its first step, in seconds.
        ttft_s: from the complete request to the first byte of its answer, in seconds; None if it
            is no stream.
        total_s: from the complete request to its end, in seconds.
    """

    request_id: str
    ended_at: float
    account: str
    key_id: str
    model: str
    served_model: str
    engine: str
    kind: str
    endpoint: str
    stream: bool
    outcome: str
    status: int
    code: str | None
    finish_reason: str | None
    usage_known: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    images: int
    queue_s: float | None
    ttft_s: float | None
    total_s: float
    replica: str
    retried: bool
    version: str = ""  # the revision of the adapter or the model, where one is set


# An entry and its number in its journal, which counts from 1.
Numbered = tuple[int, Entry]
