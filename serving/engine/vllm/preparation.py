"""Which requests to vLLM's OpenAI app are prepared in a helper process, and what comes of it.

A small body without a grammar costs the event loop about as much as handing it over; it goes
straight to vLLM. Every other one is prepared by a helper (`rehearsal.py`), within limits of time
and memory.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw
from vllm.config import VllmConfig

from serving.api.audio import PATHS as AUDIO
from serving.catalogue.spec import EngineSpec
from serving.engine.bodies.check import Checked
from serving.engine.bodies.pairs import PATHS as PAIR_PATHS
from serving.engine.bodies.pairs import pairs_of
from serving.engine.bodies.responses import is_constrained
from serving.engine.helpers.nursery import Nursery
from serving.engine.helpers.pool import Helpers
from serving.engine.images.blocks import take_images_of
from serving.engine.images.chat import may_hold_media
from serving.engine.interface import Reply
from serving.engine.vllm.patches.pooling import Replay
from serving.engine.vllm.patches_rehearsal import Rehearsed
from serving.engine.vllm.prepare_limits import PrepareLimits
from serving.engine.vllm.rehearsal import Answered, Found, Job, Prepared, Refused, Rehearsal
from serving.wire.messages import HttpCall

# Of the event loop, 16 KiB of the dearest JSON that vLLM takes (messages without text) cost 20 ms.
SMALL_BYTES = 16 * 1024
# vLLM makes tokens of the texts of all requests one after the other, in one thread.
FEW_TEXTS = 16
POOLING = PAIR_PATHS | {"/v1/embeddings"}
# Formats whose grammar is always the same.
_PLAIN_FORMATS = ({"type": "text"}, {"type": "json_object"})

_decode_found = msgspec.msgpack.Decoder(Found).decode


_NOTHING = Raw(b"null")
_NOTHINGS = (_NOTHING, Raw(b"[]"))


class _OutputConfig(msgspec.Struct):
    format: Raw = _NOTHING


class _Look(msgspec.Struct):
    """The fields of a small body that may make it heavy."""

    response_format: Raw = _NOTHING
    structured_outputs: Raw = _NOTHING
    tools: Raw = _NOTHING
    text: Raw = _NOTHING
    bad_words: Raw = _NOTHING
    output_config: _OutputConfig | None = None


_look = msgspec.json.Decoder(_Look).decode
# What decoding raises for a body that the check will refuse.
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


def is_light(path: str, body: bytes) -> bool:
    """True if vLLM's app has little to do before the engine core has the request."""
    if len(body) > SMALL_BYTES:
        return False
    if path in POOLING:
        return _are_few(body)
    try:
        found = _look(body)
    except _UNREADABLE:
        return False  # whatever it is
    if any(field not in _NOTHINGS for field in (found.structured_outputs, found.bad_words)):
        return False
    if found.tools not in _NOTHINGS:
        return False
    if found.output_config is not None and found.output_config.format not in _NOTHINGS:
        return False
    form, text = found.response_format, found.text
    try:
        # What has been looked at has not been decoded: it need not be UTF-8.
        if form not in _NOTHINGS and msgspec.json.decode(form) not in _PLAIN_FORMATS:
            return False
        # Responses have their format in `text`.
        return text in _NOTHINGS or not is_constrained({"text": msgspec.json.decode(text)})
    except _UNREADABLE:
        return False


def _are_few(body: bytes) -> bool:
    """True if a body has few texts to embed or to score, and not much in them."""
    try:
        given = msgspec.json.decode(body, type=dict[str, Any])
    except _UNREADABLE:
        return False
    if given.get("padding") is not None:
        return False  # each text has as many tokens as the context
    texts, asked = given.get("input"), pairs_of(given)
    count = max(asked.number, len(texts) if type(texts) is list else 0)
    # Token IDs are no texts, and need not become tokens.
    ids = type(texts) is list and texts and type(texts[0]) is int
    return (ids or count <= FEW_TEXTS) and asked.characters <= SMALL_BYTES


class Preparation:
    """Prepares the requests of one engine."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers
        self.rehearsed = Rehearsed()
        self.pooled = Replay()

    @staticmethod
    def nursery(
        spec: EngineSpec, args: Namespace, config: VllmConfig, limits: PrepareLimits
    ) -> Nursery:
        """To be forked before the engine starts."""
        return Nursery.fork(lambda: Rehearsal(spec, args, config, limits))

    @classmethod
    def of(cls, nursery: Nursery, limits: PrepareLimits) -> Preparation:
        """With helpers of this nursery."""
        helpers = Helpers(
            nursery,
            most=limits.helpers,
            seconds=limits.time_s,
            memory_bytes=limits.memory_mib << 20,
            waiting=limits.waiting,
        )
        return cls(helpers)

    async def prepare(
        self,
        call: HttpCall,
        body: bytes,
        reply: Reply,
        check: Callable[[HttpCall, bytes], Checked],
    ) -> Prepared | None:
        """What the engine server goes on with, or None if the reply has its answer.

        Args:
            check: of a small body, before vLLM sees it; helpers check the others.

        Raises:
            ServingError: the request is refused.
            Overloaded: too many wait.
        """
        self.pooled.set(None)
        if call.path in AUDIO:
            # vLLM decodes recordings in threads of its own, and the rest of the form is small.
            self.rehearsed.set(None, None)
            check(call, body)
            return Prepared(body)
        if is_light(call.path, body):
            self.rehearsed.set(None, None)
            constrained = check(call, body).constrained
            urls: list[str] = []
            if may_hold_media(body):
                urls, body = take_images_of(call.path, body)
            return Prepared(body, urls, constrained=constrained)
        job = Job(call, body, call.adapter is not None)
        found: Found = _decode_found(await self._helpers.run(msgspec.msgpack.encode(job)))
        if isinstance(found, Refused):
            raise found.error()
        if isinstance(found, Answered):
            if found.head is not None:
                reply.head(found.head)
            reply.data(found.body)
            return None
        renders: tuple[list[Any], list[dict[str, Any]]] | None = None
        if found.inputs is not None:
            renders = (found.last or [[]], found.inputs)
        self.rehearsed.set(renders, found.constraint)
        self.pooled.set(found.pooled)
        return found

    @property
    def alive(self) -> bool:
        """False when no request can be prepared any more."""
        return self._helpers.alive

    def close(self) -> None:
        self._helpers.close()
