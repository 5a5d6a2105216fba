"""What a helper process prepared, beside what the engine server does by itself, on a real engine.

    python -m tests.prepared --engine vllm      (a line of JSON a case: name, plain, prepared)

First a caller leaves while a helper prepares its request (`prepared_left.py`, a line as well). Each
request is answered twice by the same engine: once as a light one, which goes straight to
vLLM's app, and once through a helper. `tests/cluster/test_prepared.py` compares the answers. The
engine runs in this process, whose choice between the two ways is set for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from serving.engine.helpers.pool import Helpers
from serving.engine.interface import Tally
from serving.errors import ServingError
from serving.wire.messages import AdapterRef, HttpCall
from tests.fuzz_bodies import Collected
from tests.fuzz_engines import MODEL, Subject, start_embed, start_vision, start_vllm
from tests.prepared_left import leave

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
EMBEDDINGS, TOKENIZE, DETOKENIZE = "/v1/embeddings", "/tokenize", "/detokenize"
# What differs between two answers to the same request.
_OF_ONE_ANSWER = frozenset(("id", "created", "request_id"))


class Asked(NamedTuple):
    """A request. `stream`: it is streamed as well."""

    path: str
    fields: dict[str, Any]
    stream: bool = False


def _chat(*turns: str, **fields: Any) -> Asked:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return Asked(CHAT, {"messages": messages, "max_tokens": 8, **fields}, stream=True)


def _completion(prompt: Any, **fields: Any) -> Asked:
    return Asked(COMPLETIONS, {"prompt": prompt, "max_tokens": 8, **fields}, stream=True)


def _picture(side: int) -> dict[str, Any]:
    from PIL import Image

    out = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((side, side)).save(out, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
            "required": ["city"],
        },
    },
}
CALLED = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
NAMED = {"type": "function", "function": {"name": "weather"}}
ENUM = {"type": "string", "enum": ["one", "two"]}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": ENUM}}
TAG = {
    "type": "structural_tag",
    "structures": [{"begin": "<a>", "schema": ENUM, "end": "</a>"}],
    "triggers": ["<a"],
}
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Rome?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALLED]},
    {"role": "tool", "tool_call_id": "c1", "content": "sun"},
]

GENERATE = {
    "completion": _completion("Once upon a time"),
    "completion, token IDs": _completion([5, 6, 7]),
    "completion, several prompts": _completion(["Once upon", "a time"], n=2, seed=5, temperature=1),
    "completion, echo": _completion("Once upon a time", echo=True, logprobs=2),
    "completion, echo only": _completion("Once upon a time", echo=True, max_tokens=0),
    "completion, suffix": _completion("Once", suffix="time"),
    "completion, stop": _completion(
        "Once upon a time", stop=[" the"], include_stop_str_in_output=True
    ),
    "completion, prompt_logprobs": Asked(
        COMPLETIONS, {"prompt": "Once upon", "max_tokens": 2, "prompt_logprobs": 1}
    ),
    "completion, truncated": _completion("Once upon a time " * 9, truncate_prompt_tokens=5),
    "completion, token IDs returned": _completion("Once upon", return_token_ids=True),
    "completion, bad words": _completion("Once upon a time", bad_words=["the", "there"]),
    "completion, regex": _completion("Once", structured_outputs={"regex": "(ab|cd){2}"}),
    "completion, choice": _completion("Once", structured_outputs={"choice": ["north", "south"]}),
    "completion, grammar": _completion(
        "Once", structured_outputs={"grammar": 'root ::= "a" | "b"'}
    ),
    "completion, too long": _completion("Once upon a time " * 900),
    "completion, out of vocabulary": _completion([99_999_999]),
    "completion, wrong": _completion("Once", temperature=-1),
    "completion, bad regex": _completion("Once", structured_outputs={"regex": "("}),
    "completion, no number": _completion("Once", max_tokens="many"),
    "completion, beams": Asked(
        COMPLETIONS, {"prompt": "Once", "max_tokens": 4, "n": 2, "use_beam_search": True}
    ),
    "chat": _chat("Tell me a story."),
    "chat, turns": _chat("Once", "upon", "a time"),
    "chat, echo": _chat("Once", "upon a", echo=True, add_generation_prompt=False),
    "chat, continued": _chat(
        "Once", "upon a", add_generation_prompt=False, continue_final_message=True
    ),
    "chat, usage": _chat("Once", stream_options={"include_usage": True}),
    "chat, logprobs": _chat("Once", logprobs=True, top_logprobs=2),
    "chat, schema": _chat("Once", response_format=FORM),
    "chat, JSON": _chat("Once", response_format={"type": "json_object"}),
    "chat, structural tag": _chat("Once", response_format=TAG),
    "chat, tools, none": _chat("Rome?", tools=[TOOL], tool_choice="none"),
    "chat, tools, auto": _chat("Rome?", tools=[TOOL]),
    "chat, tools, named": _chat("Rome?", tools=[TOOL], tool_choice=NAMED, max_tokens=40),
    "chat, tools, required": _chat("Rome?", tools=[TOOL], tool_choice="required", max_tokens=60),
    "chat, tools, unknown": _chat(
        "Rome?", tools=[TOOL], tool_choice={**NAMED, "function": {"name": "x"}}
    ),
    "chat, tools called": Asked(
        CHAT, {"messages": HISTORY, "max_tokens": 8, "tools": [TOOL], "tool_choice": "none"}, True
    ),
    "chat, tools called, named": Asked(
        CHAT,
        {"messages": HISTORY, "max_tokens": 40, "tools": [TOOL], "tool_choice": NAMED},
        stream=True,
    ),
    "chat, parts": Asked(CHAT, {"messages": HISTORY[:2], "max_tokens": 8}, stream=True),
    "chat, documents": _chat("Once", documents=[{"title": "a", "text": "b"}]),
    "chat, no messages": Asked(CHAT, {"messages": []}),
    "chat, image": Asked(
        CHAT, {"messages": [{"role": "user", "content": [_picture(8)]}], "max_tokens": 2}
    ),
    "tokenize": Asked(TOKENIZE, {"prompt": "Once upon a time", "return_token_strs": True}),
    "tokenize, chat": Asked(TOKENIZE, {"messages": HISTORY, "tools": [TOOL]}),
    "detokenize": Asked(DETOKENIZE, {"tokens": [5, 6, 7]}),
    "detokenize, out of vocabulary": Asked(DETOKENIZE, {"tokens": [99_999_999]}),
}
EMBED = {
    "one text": Asked(EMBEDDINGS, {"input": "Once upon a time"}),
    "several texts": Asked(EMBEDDINGS, {"input": ["Once upon", "a time", "a time"]}),
    "token IDs": Asked(EMBEDDINGS, {"input": [[5, 6], [7]]}),
    "base64": Asked(EMBEDDINGS, {"input": "Once", "encoding_format": "base64"}),
    "truncated": Asked(EMBEDDINGS, {"input": "Once upon " * 99, "truncate_prompt_tokens": 5}),
    "a megabyte of texts": Asked(
        EMBEDDINGS, {"input": ["many people " * 170] * 512, "truncate_prompt_tokens": 5}
    ),
    "too long": Asked(EMBEDDINGS, {"input": ["Once", "Once upon " * 900]}),
    "dimensions": Asked(EMBEDDINGS, {"input": "Once", "dimensions": 4}),
    "messages": Asked(EMBEDDINGS, {"messages": HISTORY[:2]}),
    "nothing": Asked(EMBEDDINGS, {"input": []}),
    "tokenize": Asked(TOKENIZE, {"prompt": "Once upon a time"}),
}


def _seeing(*content: Any, **fields: Any) -> Asked:
    messages = [{"role": "user", "content": list(content)}]
    return Asked(CHAT, {"messages": messages, "max_tokens": 8, **fields}, stream=True)


QUESTION = {"type": "text", "text": "What is it?"}
SEE = {
    "an image": _seeing(_picture(40), QUESTION),
    "two images": _seeing(_picture(40), QUESTION, _picture(30)),
    "an image and a schema": _seeing(_picture(40), QUESTION, response_format=FORM),
    "no image": _seeing(QUESTION),
    "too many images": _seeing(*[_picture(4)] * 20),
    "no picture": _seeing({"type": "image_url", "image_url": {"url": "data:,x"}}),
    "a host": _seeing({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
    "tokenize": Asked(TOKENIZE, {"prompt": "Once upon a time"}),
}

ENGINES: dict[str, tuple[Callable[[Path], Any], dict[str, Asked]]] = {
    "vllm": (start_vllm, GENERATE),
    "embed": (start_embed, EMBED),
    "vision": (start_vision, SEE),
}


async def compare(subject: Subject, cases: dict[str, Asked]) -> None:
    """Print both answers to each request.

    Raises:
        AssertionError: a request went the other way than it should.
    """
    from serving.engine.vllm import preparation

    prepared = _count_jobs(preparation.Helpers)
    for adapter in subject.adapters:
        for name, asked in cases.items():
            for stream in (False, True) if asked.stream else (False,):
                answers = []
                for light in (True, False):
                    preparation.is_light = lambda *_, light=light: light
                    prepared.clear()
                    answers.append(await _answer(subject, asked, adapter, stream=stream))
                    # Two answers that came the same way would say nothing.
                    assert len(prepared) == (0 if light else 1), (name, light, len(prepared))
                case = [name, *([adapter.id] if adapter else []), *(["streamed"] if stream else [])]
                print(json.dumps([", ".join(case), *answers]), flush=True)


def _count_jobs(helpers: type[Helpers]) -> list[bytes]:
    """The jobs that are given to helpers from now on."""
    jobs: list[bytes] = []
    run = helpers.run

    async def counted(self: Helpers, job: bytes) -> bytes:
        jobs.append(job)
        return await run(self, job)

    helpers.run = counted  # type: ignore[method-assign]
    return jobs


async def _answer(
    subject: Subject, asked: Asked, adapter: AdapterRef | None, *, stream: bool
) -> list[Any]:
    """Status and what was said, without what differs from one answer to the next."""
    fields = {"model": adapter.id if adapter else MODEL, "temperature": 0, **asked.fields}
    if stream:
        fields["stream"] = True
    headers = (("content-type", "application/json"),)
    call = HttpCall("r", fields["model"], "POST", asked.path, headers=headers, adapter=adapter)
    reply = Collected()
    tally = Tally()
    try:
        await subject.engine.http(call, json.dumps(fields).encode(), reply, tally)
    except ServingError as error:
        return [error.status, type(error).__name__, error.param, error.message]
    used = [tally.prompt_tokens, tally.completion_tokens]
    if not reply.body.startswith(b"data: "):
        return [reply.status, *used, _steady(json.loads(reply.body))]
    events = [line[6:] for line in reply.body.decode().split("\n\n") if line]
    return [reply.status, *used, *_merged([json.loads(each) for each in events[:-1]]), events[-1]]


def _merged(events: list[Any]) -> tuple[Any, ...]:
    """What a stream said, whatever it said in which event: how many tokens one has depends on how
    fast it was read."""
    shape: dict[str, Any] = {}
    texts: dict[str, str] = {}
    lists: dict[str, list[Any]] = {}

    def add(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                add(f"{path}.{key}", each)
        elif isinstance(value, str) and path.endswith((".text", ".content", ".arguments")):
            texts[path] = texts.get(path, "") + value
        elif isinstance(value, list) and path.endswith(".tool_calls"):
            for each in value:
                add(f"{path}.{each['index']}", _steady(each))
        elif isinstance(value, list):
            lists.setdefault(path, []).extend(value)
        elif value is not None:
            shape[path] = value

    for event in events:
        choices = event.pop("choices")
        add("", _steady(event))
        for choice in choices:
            add(str(choice["index"]), choice)
    return shape, texts, lists


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(each) for key, each in value.items() if key not in _OF_ONE_ANSWER}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=sorted(ENGINES), required=True)
    start, cases = ENGINES[parser.parse_args().engine]
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        subject = runner.run(start(Path(folder)))
        first = next(iter(cases.values()))
        body = json.dumps({"model": MODEL, **first.fields}).encode()
        try:
            print(json.dumps(runner.run(leave(subject, first.path, body))), flush=True)
            runner.run(compare(subject, cases))
        finally:
            # Otherwise this process waits for the engine's core for ever.
            runner.run(subject.engine.close())


if __name__ == "__main__":
    sys.exit(main())
