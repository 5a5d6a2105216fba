"""What is sent: the path, head and body of a planned request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from loadtests.load.planned import READERS, Endpoint, Planned
from loadtests.wire.service import Service

PATHS: dict[Endpoint, str] = {
    "create_completion": "/v4/completions",
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
}


@dataclass(frozen=True, slots=True)
class Said:
    """A turn that is over: what was asked and what was answered."""

    prompt: str
    answer: str


def request(service: Service, planned: Planned, history: Sequence[Said] = ()) -> bytes:
    """Return a whole HTTP request. Raises ValueError for a header that is none."""
    content = body(planned, history)
    lines = [f"POST {service.path(PATHS[planned.endpoint])} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers(service, planned).items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header has a line break in it")
    lines.append(f"content-length: {len(content)}\r\n\r\n")
    return "\r\n".join(lines).encode() + content


def headers(service: Service, planned: Planned) -> dict[str, str]:
    """Return the headers; those of the plan replace ours."""
    found = {
        "host": service.authority,
        "user-agent": "loadtest",
        "accept": "text/event-stream" if planned.stream else "application/json",
        "content-type": "application/json",
    }
    if planned.key is not None:
        if planned.endpoint == "create_completion":
            found["x-api-key"] = planned.key
        else:
            found["authorization"] = f"Bearer {planned.key}"
    return found | {name.lower(): value for name, value in planned.headers.items()}


def body(planned: Planned, history: Sequence[Said] = ()) -> bytes:
    """Return the body as JSON. It is greedy unless the plan's fields say otherwise."""
    if planned.endpoint in READERS:
        asked = {"model": planned.model, READERS[planned.endpoint]: text(planned, history)}
        return msgspec.json.encode(_merged(asked, planned.extra))
    found: dict[str, Any] = {"model": planned.model, "stream": planned.stream}
    if planned.endpoint == "create_completion":
        found["prompt"] = text(planned, history)
        found["model_parameters"] = {"temperature": 0, "max_tokens": planned.max_tokens}
        if planned.images:
            found["images"] = [{"image_url": url} for url in planned.images]
        return msgspec.json.encode(_merged(found, planned.extra))
    if planned.endpoint == "chat":
        found["messages"] = messages(planned, history)
    else:
        found["prompt"] = text(planned, history)
    found |= {"temperature": 0, "max_tokens": planned.max_tokens}
    if planned.stream:
        found["stream_options"] = {"include_usage": True}
    # vLLM's own fields; they are left out where nobody asks for them, for other services.
    if planned.ignore_eos:
        found["ignore_eos"] = True
    if planned.priority is not None:
        found["priority"] = planned.priority
    return msgspec.json.encode(_merged(found, planned.extra))


def text(planned: Planned, history: Sequence[Said]) -> str:
    """Return a conversation as one text: each turn begins with the whole of the one before it.

    A server that keeps prefixes finds them, then.
    """
    parts = [] if planned.system is None else [planned.system + "\n"]
    parts += [f"{said.prompt}{said.answer}\n" for said in history]
    return "".join([*parts, planned.prompt])


def messages(planned: Planned, history: Sequence[Said]) -> list[dict[str, Any]]:
    """Return a conversation as messages; images go with the turn that adds them."""
    found: list[dict[str, Any]] = []
    if planned.system is not None:
        found.append({"role": "system", "content": planned.system})
    for said in history:
        found.append({"role": "user", "content": said.prompt})
        found.append({"role": "assistant", "content": said.answer})
    content: str | list[dict[str, Any]] = planned.prompt
    if planned.images:
        content = [{"type": "image_url", "image_url": {"url": url}} for url in planned.images]
        content.append({"type": "text", "text": planned.prompt})
    return [*found, {"role": "user", "content": content}]


def _merged(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; where both have an object under a name, its fields are merged as well."""
    found = dict(ours)
    for name, value in theirs.items():
        mine = found.get(name)
        both = isinstance(mine, dict) and isinstance(value, Mapping)
        found[name] = _merged(mine, value) if both and mine is not None else value
    return found
