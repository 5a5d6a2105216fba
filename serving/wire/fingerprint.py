"""What tells one request from another: by it a request that ended an engine is known again.

It covers what an engine runs: the adapter, the prompt format, and the body or prompt with its
parameters. It covers nothing that may differ when a client sends the same request again: its ID,
its headers, and the name under which the model was asked for.
"""

from __future__ import annotations

import hashlib

import msgspec

from serving.wire.body import Body, pieces_of
from serving.wire.messages import Call, CompletionCall

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Call).decode
_BYTES = 16


class Fingerprint(msgspec.Struct, frozen=True):
    """`digest` is the hash of a request, `size` the size of its prompt or body.

    The size is known without hashing, so that requests of other sizes are told apart for nothing.
    """

    size: int
    digest: str


class Doubt(msgspec.Struct, frozen=True):
    """A request that ran in the step that an engine died in, and had `place` tokens of its answer
    by then."""

    request: Fingerprint
    place: int


def size_of(call: Call, body: Body) -> int:
    """The size of a call's fingerprint: characters of its prompt, or bytes of its body."""
    return len(call.prompt) if isinstance(call, CompletionCall) else len(body)


def fingerprint(call: Call, body: Body) -> Fingerprint:
    """The fingerprint of a call. Takes about a millisecond per MB."""
    # As the other side of a link has it, where `0` of a float field has become `0.0`.
    call = _decode(_encode(call))
    what: tuple[object, ...]
    if isinstance(call, CompletionCall):
        what = (call.prompt, call.stream, call.sampling, call.images)
    else:
        what = (call.path,)
    head = _encode((what, call.adapter, call.prompt_format))
    # The head ends where its JSON does, so no body can move the border between the two.
    digest = hashlib.blake2b(head, digest_size=_BYTES)
    for piece in pieces_of(body):
        digest.update(piece)
    return Fingerprint(size_of(call, body), digest.hexdigest())
