"""Server-sent events as the client SDKs can read them.

`scale-gp` crashes on `[DONE]`, `id:` and `retry:`; every client reads unnamed `data:` frames and
comments, and loses a frame that no blank line closes. Text is escaped to ASCII because
`scale-egp` splits lines with `str.splitlines`, which also splits on U+0085, U+2028 and U+2029.
"""

from __future__ import annotations

import json

# Events of a response are numbered. A router does not read them, so it numbers its own, which is
# the last one, with the greatest number that every client can read.
LAST_NUMBER = 2**31 - 1
KEEPALIVE = b": keepalive\n\n"
# What Anthropic sends into a stream that has long been silent.
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def error_event(envelope: bytes) -> bytes:
    """The frame that ends a Create Completion stream, or a stream of Messages, which failed after
    its first byte."""
    return b"event: error\ndata: " + envelope + b"\n\n"


def openai_error_event(envelope: bytes) -> bytes:
    """The same for the OpenAI endpoints, whose SDK raises on a `data:` frame with an `error`."""
    return b"data: " + envelope + b"\n\n"


def responses_error_event(envelope: bytes) -> bytes:
    """The same for OpenAI's Responses: the event `error`.

    OpenAI's reference has code, message and param in the event itself; its server nests them in
    `error`, and its SDK raises on that. Clients read the one or the other, so both are there.
    """
    error = json.loads(envelope)["error"]
    event = {
        "type": "error",
        "code": error["code"],
        "message": error["message"],
        "param": error["param"],
        "sequence_number": LAST_NUMBER,
        "error": error,
    }
    return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"
