"""What reading one body takes of a router's event loop, whatever is in it and in which field."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from serving.api.endpoints import ENDPOINTS, Relayed, Spooled
from serving.api.openai import parse_openai
from serving.api.openapi.document import document
from serving.api.structure import MAX_TEXT, SMALL, BodyShape, check_structure
from serving.errors import InvalidRequest, ServingError
from serving.settings import Settings
from tests.asking import ASKED

MOST = BodyShape()
LARGEST = Settings().max_body_bytes
# The worst takes 0.07 on an idle machine, and twice as long where others work; without the limits
# it were seconds.
BAR_S = 0.4
# As much as is let through: many of one kind of value, or as many bytes as a body may have.
MANY: dict[str, Callable[[], bytes]] = {
    "lists": lambda: b"[" + b",".join([b"[]"] * (MOST.brackets - 100)) + b"]",
    "objects": lambda: b"[" + b",".join([b'{"a":1}'] * (MOST.brackets - 100)) + b"]",
    "numbers": lambda: b"[" + b",".join([b"1"] * MOST.commas)[:-200] + b"1]",
    "strings": lambda: b"[" + b",".join([b'""'] * (MOST.commas - 100)) + b"]",
    "keys": lambda: b"{" + b",".join(b'"%d":1' % n for n in range(MOST.commas - 100)) + b"}",
    "escapes": lambda: b'"' + b"\\n" * (MOST.escapes - 100) + b'"',
    "unicode": lambda: b'"' + b"\\u00e9" * (MOST.escapes - 100) + b'"',
}
LONG: dict[str, Callable[[], bytes]] = {
    "a string": lambda: b'"' + b"a" * (LARGEST - 1000) + b'"',
    "UTF-8": lambda: b'"' + "é".encode() * (LARGEST // 2 - 1000) + b'"',
    "a number": lambda: b"1" * (LARGEST - 1000),
    "spaces": lambda: b" " * (LARGEST - 1000) + b"1",
}
PATHS = (
    "/v4/completions",
    "/v1/chat/completions",
    "/v4/chat-completions",
    "/v4/models/{model}/completions",
    "/v4/models/{model}/chat-completions",
    "/v1/llm/completions-sync",
)
DOCUMENT = document(ENDPOINTS)
HOLE = "in this place"


@dataclass
class Sent:
    """See `serving.api.asked.Sent`."""

    path: str
    id: str = "r-1"
    name: str = "m"
    query: bytes = b"model_endpoint_name=m"
    headers: dict[bytes, bytes] = field(default_factory=dict)


def parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema, and those that it is made of."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    yield schema
    for way in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(way, ()):
            yield from parts(part)


def holes(schema: dict[str, Any], depth: int) -> Iterator[Any]:
    """Values with a hole in each place that the schema has, down to some depth."""
    yield HOLE
    if not depth:
        return
    for part in parts(schema):
        for name, inner in part.get("properties", {}).items():
            for value in holes(inner, depth - 1):
                yield {name: value}
        if part.get("type") == "array":
            for value in holes(part.get("items", {}), depth - 1):
                yield [value]


def bodies(path: str) -> list[str]:
    """The endpoint's example, with a hole in each of its fields."""
    (asking,) = [asking for asking in ASKED if asking.endpoint.path == path]
    request = DOCUMENT["paths"][path]["post"]["requestBody"]
    schema = request["content"]["application/json"]["schema"]
    example = asking.body
    if asking.path("m") == path:
        example["model"] = "m"
    # Of OpenAI's and Anthropic's bodies a router reads single fields only.
    depth = 1 if parser(path) is parse_openai else 3
    values = (value for value in holes(schema, depth) if isinstance(value, dict))
    found = {json.dumps(example | value) for value in values}
    found.add(json.dumps(example | {"unknown": HOLE}))
    return sorted(found)


def parser(path: str) -> Callable[[Any, bytes], object]:
    (endpoint,) = [at for at in ENDPOINTS if at.path == path and at.method == "POST"]
    assert isinstance(endpoint.answer, Relayed)
    assert not isinstance(endpoint.answer.parse, Spooled)
    return endpoint.answer.parse


def seconds(path: str, body: bytes) -> float:
    """What a router's thread works on a body that was let through. The better of two if it is
    long, since collections of garbage come when they come."""
    if len(body) < MAX_TEXT:
        check_structure(body, MOST)
    parse, best = parser(path), BAR_S + 1
    for _ in range(2):
        if best > BAR_S:
            began = time.thread_time()
            with contextlib.suppress(ServingError):
                parse(Sent(path), body)
            best = min(best, time.thread_time() - began)
    return best


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("path", PATHS)
def test_many_values_in_any_field(path: str, kind: str) -> None:
    value, slow = MANY[kind](), {}
    for body in bodies(path):
        took = seconds(path, body.encode().replace(json.dumps(HOLE).encode(), value))
        if took > BAR_S:
            slow[body] = took
    assert not slow


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize("path", ["/v4/completions", "/v1/rerank"])
def test_many_bytes_in_any_field(path: str, kind: str) -> None:
    value, slow = LONG[kind](), {}
    for body in bodies(path):
        took = seconds(path, body.encode().replace(json.dumps(HOLE).encode(), value))
        if took > BAR_S:
            slow[body] = took
    assert not slow


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (b"[],", "opening brackets"),
        (b'{"a":1},', "braces"),
        (b"1,", "commas"),
        (b"\\n", "backslashes"),
    ],
)
def test_a_body_of_millions_is_refused_unread(item: bytes, said: str) -> None:
    body = b'{"model":"m","prompt":[' + item * (LARGEST // len(item) - 20) + b"1]}"
    began = time.thread_time()
    with pytest.raises(InvalidRequest, match=said):
        check_structure(body, MOST)
    assert time.thread_time() - began < BAR_S


def test_images_are_no_text() -> None:
    image, text = b"data:image/png;base64," + b"iVBORw0KGgo" * 2_000_000, "é" * 100_000
    part = b'{"type":"image_url","image_url":{"url":"%s"}}' % image
    message = b'{"model":"m","messages":[{"content":[%s,{"text":"%s"}]}]}'
    check_structure(message % (part, text.encode()), MOST)
    check_structure(message % (part, b"a"), MOST)
    with pytest.raises(InvalidRequest, match=r"has 9\d{6} bytes beside its images"):
        check_structure(message % (part, text.encode() * 45), MOST)
    with pytest.raises(InvalidRequest, match="beside its images"):
        check_structure(b'{"model":"m","prompt":"%s' % ("é" * 9_000_000).encode(), MOST)


def test_a_small_body_may_have_anything() -> None:
    check_structure(b"[" * SMALL, BodyShape(1, 1, 1))


def test_engines_take_no_more_by_default() -> None:
    from serving.engine.bodies.limits import BodyLimits

    limits = BodyLimits()
    assert (limits.brackets, limits.commas) == (MOST.brackets, MOST.commas)
