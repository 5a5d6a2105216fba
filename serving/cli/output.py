"""Reads the server's answers for the `serving` command and lays out what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click
import httpx

Json = dict[str, Any]
LOAD_COLUMNS = ("RUNNING", "WAITING", "IN FLIGHT", "ADAPTERS")
MODEL_COLUMNS = ("MODEL", "KIND", "READY", "REPLICAS", *LOAD_COLUMNS)
REPLICA_COLUMNS = ("MODEL", "REPLICA", "ADDRESS", "CODE", "STATE", *LOAD_COLUMNS)
TOKEN_COUNTS = ("prompt", "completion", "total")


def write(text: str) -> None:
    """Write to stdout at once, byte for byte.

    Bytes, because click strips escape sequences from text that goes into a pipe, and because a
    model's text must not crash a terminal whose encoding is not UTF-8.
    """
    click.echo(text.encode("utf-8", "replace"), nl=False)


def write_line(text: str) -> None:
    write(text + "\n")


def one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns: numbers to the right, everything else to the left."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    columns = list(zip(headers, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(map(_is_number, column[1:])) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [list(headers), *cells]
    )


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).isdigit()


def duration(seconds: float) -> str:
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86_400)
    if days:
        return f"{days}d{hours % 24:02}h"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    return f"{minutes}m{int(seconds) % 60:02}s"


def readiness(answer: Json) -> list[bool]:
    """Whether each model of `GET /status` that runs by itself is ready: engine models and hosted
    models. Adapters and aliases are ready when these are."""
    return [model["ready"] for model in answer["models"] if model["kind"] in ("engine", "upstream")]


def status(answer: Json, replicas: bool) -> str:
    """`GET /status` as one line about the router, a table of models and one of replicas."""
    ready = readiness(answer)
    parts = [
        f"router {answer['router']}, up {duration(answer['uptime_s'])}, "
        f"{sum(ready)} of {len(ready)} models ready"
    ]
    parts.append(table(MODEL_COLUMNS, map(_model_row, answer["models"])))
    if replicas:
        # Engines only: adapters and aliases would repeat the same replicas.
        engines = [model for model in answer["models"] if model["kind"] == "engine"]
        rows = [_replica_row(model["id"], each) for model in engines for each in model["replicas"]]
        parts.append("\n" + table(REPLICA_COLUMNS, rows))
    return "\n".join(parts)


def _model_row(model: Json) -> list[object]:
    replicas = model["replicas"]
    up = sum(replica["state"] == "ready" for replica in replicas)
    running: object = None
    waiting: object = None
    adapters: object = None
    if model["kind"] == "engine":
        running = sum(replica["running"] for replica in replicas)
        waiting = sum(replica["waiting"] for replica in replicas)
        adapters = len({name for replica in replicas for name in replica["adapters"]})
    elif model["kind"] == "adapter":
        holders = sum(model["id"] in replica["adapters"] for replica in replicas)
        adapters = f"on {holders}"
    return [
        model["id"],
        model["kind"],
        "yes" if model["ready"] else "no",
        f"{up}/{len(replicas)}",
        running,
        waiting,
        model["in_flight"],
        adapters,
    ]


def _replica_row(model: str, replica: Json) -> list[object]:
    return [
        model,
        replica["id"],
        replica["address"],
        replica["code"] or None,
        replica["state"],
        replica["running"],
        replica["waiting"],
        replica["in_flight"],
        ",".join(replica["adapters"]) or None,
    ]


PARSERS = ("TOOLS", "REASONING")


def models(answer: Json) -> str:
    """`GET /v1/models` as a table."""
    rows = [
        [*_kind_and_base(model), model.get("max_model_len"), *_parsers(model)]
        for model in answer["data"]
    ]
    return table(["ID", "KIND", "BASE", "CONTEXT", *PARSERS], rows)


def all_models(answer: Json) -> str:
    """`GET /v1/models?all=true` as a table: also what is not served here."""
    rows = []
    for model in answer["data"]:
        name, kind, base = _kind_and_base(model)
        related = base or model.get("successor") or model.get("provider")
        context = model.get("max_model_len")
        rows.append([name, kind, _state(model, kind), related, context, *_parsers(model)])
    return table(["ID", "KIND", "STATE", "RELATED", "CONTEXT", *PARSERS], rows)


def _kind_and_base(model: Json) -> list[Any]:
    """ID, kind and base. An older server does not send the kind: it follows from OpenAI's `parent`
    and `root`."""
    parent, root = model.get("parent"), model.get("root")
    if parent is not None:
        kind, base = "adapter", parent
    elif root not in (None, model["id"]):
        kind, base = "alias", root
    else:
        kind, base = "engine", None
    return [model["id"], model.get("kind") or kind, base]


def _parsers(model: Json) -> list[Any]:
    return [model.get("tool_parser"), model.get("reasoning_parser")]


def _state(model: Json, kind: str) -> str:
    if kind == "retired":
        return f"retired {model.get('retired_on') or ''}".rstrip()
    return "deployed" if model.get("deployed", True) else "known"


def refusal(response: httpx.Response) -> str:
    """An error response in one line: `message (status, code, request id)`."""
    try:
        body = response.json()
    except ValueError:  # not our server: a proxy's HTML page, say
        body = None
    request_id = response.headers.get("x-request-id")
    message, details = _envelope(body, request_id)
    status = str(response.status_code)
    return _sentence(
        message or f"the server answered {response.reason_phrase or 'an error'}",
        [status, *(detail for detail in details if detail != status)],
    )


def _envelope(body: Any, request_id: str | None = None) -> tuple[str | None, list[str]]:
    """The message and the [code, request id] of our error envelope, or of OpenAI's."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        detail = body.get("detail") if isinstance(body, dict) else None
        error = {"message": error or detail}
    message = error.get("message")
    details = [error.get("code") or error.get("type"), error.get("request_id") or request_id]
    return message and str(message), [str(detail) for detail in details if detail]


def _sentence(message: str, details: list[str]) -> str:
    return f"{message} ({', '.join(details)})" if details else message


@dataclass(frozen=True)
class Event:
    name: str
    data: str


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The server-sent events in a byte stream; comments are dropped.

    Bytes are cut at line ends only (httpx's `iter_lines` also cuts at U+2028, which JSON allows
    inside a string) and decoded a line at a time, so a character may be split across chunks. A
    last event without its blank line is dropped, as the standard says.
    """
    name, data = "", list[str]()
    for line in _lines(chunks):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(name or "message", "\n".join(data))
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


def chunk_text(chunk: Json) -> str:
    """The text of a completion or of one chunk of it; it must have the contract's shape."""
    text = chunk["completion"]["text"]
    if not isinstance(text, str):
        raise TypeError("completion.text is not a string")
    return text


class CompletionPrinter:
    """Prints a completion as it arrives, and keeps what the usage line needs."""

    def __init__(self, *, stream: bool, as_json: bool, clock: Callable[[], float]) -> None:
        self.stream = stream
        self.as_json = as_json
        self.clock = clock
        self.started = self.ended = clock()
        self.text_times: list[float] = []
        self.finish_reason: str | None = None
        self.usage: Json = {}
        self.open_line = False

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    def add(self, chunk: Json, text: str) -> None:
        self.ended = self.clock()
        if text:
            self.text_times.append(self.ended)
        self.finish_reason = chunk["completion"].get("finish_reason") or self.finish_reason
        self.usage = chunk.get("token_usage") or self.usage
        if self.as_json:
            write_line(one_line(chunk))
        elif text:
            self.open_line = not text.endswith("\n")
            write(text)

    def failed(self, data: str) -> str:
        """The message of an `event: error`, whose data is the error envelope."""
        try:
            body = json.loads(data)
        except ValueError:
            body = {"detail": data}
        if self.as_json:
            write_line(one_line(body))
        message, details = _envelope(body)
        return _sentence(message or "the server ended the stream with an error", details)

    def end_line(self) -> None:
        """Finish the line, so that neither a message nor the shell's prompt lands on it."""
        if self.open_line:
            self.open_line = False
            write("\n")

    def usage_line(self) -> str:
        if not self.usage:
            return "usage: the server reported none"
        parts = [", ".join(f"{name} {self.usage.get(name)}" for name in TOKEN_COUNTS) + " tokens"]
        tokens = self.usage.get("completion") or 0
        total = seconds = self.ended - self.started
        if self.stream and self.text_times:
            first, last = self.text_times[0], self.text_times[-1]
            parts.append(f"first token after {first - self.started:.3f} s")
            if last > first:
                # The wait for the first token is the prompt's; the others show the model's speed.
                tokens, seconds = tokens - 1, last - first
        if tokens > 0 and seconds > 0:
            parts.append(f"{tokens / seconds:.1f} tokens/s")
        parts.append(f"{total:.3f} s in all")
        parts.append(f"finish reason {self.finish_reason}")
        return "usage: " + "; ".join(parts)
