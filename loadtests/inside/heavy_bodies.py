"""Requests that ask for far more work than they look like, a name and a maker for each.

`make heavy` and `tests/cluster/test_heavy.py` send them. Each is made when it is asked for:
together they are hundreds of megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
CREATE = "/v4/completions"
CHAT_V4 = "/v4/chat-completions"
ACCENT, LINE_END = "\u00e9", r"\n"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"

MIB = 1 << 20
Maker = Callable[[str], tuple[str, bytes]]


def as_json(path: str, **fields: Any) -> Maker:
    """A body of these fields and the model."""
    return lambda model: (path, json.dumps({"model": model, **fields}).encode())


def lazy(path: str, fields: Callable[[], dict[str, Any]]) -> Maker:
    """The same of fields that take long to make, or much memory."""
    return lambda model: (path, json.dumps({"model": model, **fields()}).encode())


def _raw(path: str, text: Callable[[str], str]) -> Maker:
    return lambda model: (path, text(model).encode())


def _chat(count: int, content: Any = "hi") -> Maker:
    return lazy(
        CHAT, lambda: {"messages": [{"role": "user", "content": content}] * count, "max_tokens": 1}
    )


def _parts(count: int) -> Maker:
    return _chat(1, [{"type": "text", "text": "a"}] * count)


def _schema(schema: Callable[[], dict[str, Any]]) -> Maker:
    def fields() -> dict[str, Any]:
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema()}}
        return {**_HELLO, "response_format": form}

    return lazy(CHAT, fields)


def _structured(**constraint: Any) -> Maker:
    return as_json(COMPLETIONS, prompt="hello", max_tokens=2, structured_outputs=constraint)


def _enum(count: int) -> Maker:
    return _schema(lambda: {"type": "string", "enum": [f"value-{n}" for n in range(count)]})


def _object(count: int, **more: Any) -> Maker:
    """A schema with so many properties."""
    return _schema(
        lambda: {
            "type": "object",
            "properties": {f"p{n}": {"type": "string", **more} for n in range(count)},
        }
    )


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def _tags(count: int) -> Maker:
    def fields() -> dict[str, Any]:
        tags = [{"begin": f"<f{n}>", "schema": _nested(3), "end": f"</f{n}>"} for n in range(count)]
        tag = {"type": "structural_tag", "structures": tags, "triggers": ["<f"]}
        return {**_HELLO, "response_format": tag}

    return lazy(CHAT, fields)


def _tools(count: int, choice: str) -> Maker:
    def fields() -> dict[str, Any]:
        tool = {"name": "f", "description": "d" * 50, "parameters": _nested(3)}
        tools = [{"type": "function", "function": {**tool, "name": f"f{n}"}} for n in range(count)]
        return {**_HELLO, "tools": tools, "tool_choice": choice}

    return lazy(CHAT, fields)


def _blocks(count: int, block: dict[str, Any], path: str = MESSAGES) -> Maker:
    """Anthropic's Messages with so many content blocks."""
    return lazy(
        path, lambda: {"messages": [{"role": "user", "content": [block] * count}], "max_tokens": 1}
    )


def _input_schemas(count: int) -> dict[str, Any]:
    tools = [{"name": f"f{n}", "input_schema": _nested(3), "strict": True} for n in range(count)]
    return {**_HELLO, "tools": tools, "tool_choice": {"type": "any"}}


def _anbn(count: int) -> str:
    """A grammar with so many rules, each of which refers to all that follow."""
    rules = [f'r{n} ::= "a{n}" | "b" r{n + 1} | "c" r{min(n + 2, count)}' for n in range(count)]
    return "\n".join(["root ::= r0", *rules, f'r{count} ::= "z"'])


def _long(**more: Any) -> Maker:
    """A completion of 900 tokens, and what of it the answer has to say."""
    return as_json(COMPLETIONS, prompt="hi", max_tokens=900, ignore_eos=True, **more)


def _long_chat(**more: Any) -> Maker:
    hello = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 900}
    return as_json(CHAT, **hello, logprobs=True, ignore_eos=True, **more)


def _long_response(**more: Any) -> Maker:
    include = ["message.output_text.logprobs"]
    fields = {"input": "hi", "max_output_tokens": 900, "ignore_eos": True, "include": include}
    return as_json(RESPONSES, **fields, **more)


_TEXT = {"type": "text", "text": "a"}
_HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}

BODIES: dict[str, Maker] = {
    # long texts
    "8 MB prompt, truncate_prompt_tokens 10": lazy(
        COMPLETIONS,
        lambda: {"prompt": "hello " * 1_400_000, "truncate_prompt_tokens": 10, "max_tokens": 1},
    ),
    "8 MB prompt": lazy(COMPLETIONS, lambda: {"prompt": "hello " * 1_400_000, "max_tokens": 1}),
    "30 MB prompt": lazy(COMPLETIONS, lambda: {"prompt": "x" * 30_000_000}),
    "1 MB of spaces, truncated": lazy(
        COMPLETIONS, lambda: {"prompt": " " * MIB, "truncate_prompt_tokens": 10}
    ),
    "1 MB word, truncated": lazy(
        COMPLETIONS, lambda: {"prompt": "qz" * (MIB // 2), "truncate_prompt_tokens": 10}
    ),
    "200,000 emoji, truncated": lazy(
        COMPLETIONS, lambda: {"prompt": "\U0001f9ff" * 200_000, "truncate_prompt_tokens": 10}
    ),
    "/v4, 8 MB prompt": lazy(CREATE, lambda: {"prompt": "hello " * 1_400_000}),
    "/v4, 16,000 characters of spaces": as_json(CREATE, prompt=" " * 16_000),
    "/v4, 100,000 stop sequences": lazy(
        CREATE,
        lambda: {
            "prompt": "hi",
            "model_parameters": {"stop_sequences": [f"s{n}" for n in range(100_000)]},
        },
    ),
    "/v4, stop sequence of 8 MB": lazy(
        CREATE, lambda: {"prompt": "hi", "model_parameters": {"stop_sequences": ["x" * 8_000_000]}}
    ),
    "/v4, 1e6 unknown fields": lazy(
        CREATE, lambda: {"prompt": "hi", **{f"k{n}": n for n in range(1_000_000)}}
    ),
    "/v4, 1e6 parameters": lazy(
        CREATE,
        lambda: {"prompt": "hi", "model_parameters": {f"k{n}": n for n in range(1_000_000)}},
    ),
    "/v4, 300,000 images": lazy(
        CREATE, lambda: {"prompt": "hi", "images": [{"image_url": "data:"}] * 300_000}
    ),
    # counts
    "100,000 messages": _chat(100_000),
    "10,000 messages": _chat(10_000),
    "2,048 messages": _chat(2_048),
    "100,000 parts": _parts(100_000),
    "4,096 parts": _parts(4_096),
    "10,000 messages of 8 parts": _chat(10_000, [{"type": "text", "text": "a"}] * 8),
    "20,000 prompts": lazy(COMPLETIONS, lambda: {"prompt": ["hi"] * 20_000, "max_tokens": 1}),
    "1,000 prompts": lazy(COMPLETIONS, lambda: {"prompt": ["hi"] * 1_000, "max_tokens": 1}),
    "4,000 prompts of a token": as_json(COMPLETIONS, prompt=[[5]] * 4_000, max_tokens=1),
    "1e6 token IDs": lazy(COMPLETIONS, lambda: {"prompt": [5] * 1_000_000, "max_tokens": 1}),
    "n 2,000": as_json(COMPLETIONS, prompt="hi", n=2_000, max_tokens=1),
    "512 prompts": as_json(COMPLETIONS, prompt=["hi"] * 512, max_tokens=1),
    "512 prompts, n 4": as_json(COMPLETIONS, prompt=["hi"] * 512, n=4, max_tokens=1),
    "512 prompts of 60 tokens": as_json(COMPLETIONS, prompt=["hello " * 60] * 512, max_tokens=1),
    "n 128, 20 logprobs": as_json(COMPLETIONS, prompt="hi", n=128, logprobs=20, max_tokens=400),
    "n 12, 20 logprobs": as_json(
        COMPLETIONS, prompt="hi", n=12, logprobs=20, max_tokens=100, ignore_eos=True
    ),
    "chat, 20 logprobs": as_json(
        CHAT,
        messages=[{"role": "user", "content": "hi"}],
        logprobs=True,
        top_logprobs=20,
        max_tokens=900,
        ignore_eos=True,
    ),
    "20 prompt_logprobs": as_json(
        COMPLETIONS, prompt=[[5] * 1000] * 4, prompt_logprobs=20, max_tokens=1
    ),
    # answers
    "answer: 12 x 900 tokens, 20 logprobs": _long(n=12, logprobs=20),
    "answer: 12 x 900 tokens, 20 logprobs, streamed": _long(n=12, logprobs=20, stream=True),
    "answer: chat, 12 x 900 tokens, 20 logprobs": _long_chat(n=12, top_logprobs=20),
    "answer: chat, 12 x 900 tokens, 20 logprobs, streamed": _long_chat(
        n=12, top_logprobs=20, stream=True
    ),
    "answer: 128 x 900 tokens, a logprob": _long(n=128, logprobs=1),
    "answer: 128 x 900 tokens, a logprob, streamed": _long(n=128, logprobs=1, stream=True),
    "answer: 128 x 900 tokens, token IDs": _long(n=128, return_token_ids=True),
    "answer: 128 x 900 tokens, streamed": _long(n=128, stream=True),
    "answer: a response of 900 tokens, 20 logprobs": _long_response(top_logprobs=20),
    "answer: a response of 900 tokens, 20 logprobs, streamed": _long_response(
        top_logprobs=20, stream=True
    ),
    "answer: a message of 900 tokens": as_json(
        MESSAGES, messages=_HELLO["messages"], max_tokens=900, ignore_eos=True
    ),
    "answer: 32,768 prompt_logprobs": as_json(
        COMPLETIONS, prompt=[5] * 1000, prompt_logprobs=20, max_tokens=1
    ),
    "answer: 32,768 of a choice's, for 12 choices": as_json(
        COMPLETIONS, prompt=[5] * 1000, prompt_logprobs=20, n=12, max_tokens=1
    ),
    "answer: chat, 20 prompt_logprobs": as_json(
        CHAT, messages=[{"role": "user", "content": "a" * 900}], prompt_logprobs=20, max_tokens=1
    ),
    "answer: echo of 1,000 tokens, 20 logprobs, 12 choices": as_json(
        COMPLETIONS, prompt=[5] * 1000, echo=True, logprobs=20, n=12, max_tokens=1
    ),
    "answer: echo of 1,000 tokens, 20 logprobs, 12 choices, streamed": as_json(
        COMPLETIONS, prompt=[5] * 1000, echo=True, logprobs=20, n=12, max_tokens=1, stream=True
    ),
    "answer: echo of 1,000 tokens, 128 choices": as_json(
        COMPLETIONS, prompt=[5] * 1000, echo=True, n=128, max_tokens=1, return_token_ids=True
    ),
    "answer: echo of 1,000 tokens, 128 choices, streamed": as_json(
        COMPLETIONS,
        prompt=[5] * 1000,
        echo=True,
        n=128,
        max_tokens=1,
        return_token_ids=True,
        stream=True,
    ),
    "answer: echo of 32 prompts of 1,000 tokens, no logprob of its own": as_json(
        COMPLETIONS, prompt=[[5] * 1000] * 32, echo=True, logprobs=0, max_tokens=1
    ),
    "n 128": as_json(COMPLETIONS, prompt="hi", n=128, max_tokens=1),
    "100,000 stop sequences": lazy(
        COMPLETIONS, lambda: {"prompt": "hi", "stop": [f"stop-{n}" for n in range(100_000)]}
    ),
    "300,000 stop_token_ids": lazy(
        COMPLETIONS, lambda: {"prompt": "hi", "stop_token_ids": [5] * 300_000, "max_tokens": 2}
    ),
    "logit_bias of 300,000": lazy(
        COMPLETIONS,
        lambda: {"prompt": "hi", "logit_bias": {str(n): 1 for n in range(300_000)}},
    ),
    "100,000 bad_words": lazy(
        COMPLETIONS, lambda: {"prompt": "hi", "bad_words": [f"w{n}" for n in range(100_000)]}
    ),
    "3,000 bad_words": as_json(
        COMPLETIONS, prompt="hi", bad_words=[f"w{n}" for n in range(3_000)], max_tokens=2
    ),
    "300,000 allowed_token_ids": lazy(
        COMPLETIONS, lambda: {"prompt": "hi", "allowed_token_ids": [5] * 300_000}
    ),
    "chat_template_kwargs of 200,000": lazy(
        CHAT, lambda: {**_HELLO, "chat_template_kwargs": {f"k{n}": n for n in range(200_000)}}
    ),
    # grammars
    "pattern {1,5000}": _schema(lambda: {"type": "string", "pattern": "^[a-z]{1,5000}$"}),
    "pattern {1,1000}": _schema(lambda: {"type": "string", "pattern": "^[a-z]{1,1000}$"}),
    "50 patterns {1,900}": _object(50, pattern="^[a-z]{1,900}[0-9]{1,900}$"),
    "maxLength 1e9": _schema(lambda: {"type": "string", "minLength": 100_000, "maxLength": 10**9}),
    "regex {1,5000}": _structured(regex="[a-z]{1,5000}"),
    "regex ((a|b){1,100}){1,100}": _structured(regex="((a|b|cd){1,100}){1,100}"),
    "regex (a?){500}a{500}": _structured(regex="(a?){500}a{500}"),
    "regex of 100,000 characters": _structured(regex="(abc|[x-z]+)?" * 8_000),
    "enum of 200,000": _enum(200_000),
    "enum of 20,000": _enum(20_000),
    "enum of 1,000": _enum(1_000),
    "3,000 properties": _object(3_000),
    "60 levels of schema": _schema(lambda: _nested(60)),
    "400 levels of schema": _schema(lambda: _nested(400)),
    "choice of 50,000": lazy(
        COMPLETIONS,
        lambda: {
            "prompt": "hi",
            "max_tokens": 2,
            "structured_outputs": {"choice": [f"choice {n}" for n in range(50_000)]},
        },
    ),
    "grammar of 3,000 rules": _structured(grammar=_anbn(3_000)),
    "200 structural tags": _tags(200),
    "64 structural tags": _tags(64),
    "2,000 tools": _tools(2_000, "none"),
    "500 tools, required": _tools(500, "required"),
    # Anthropic's
    "messages of 100,000 blocks": _blocks(100_000, _TEXT),
    "messages of 500 blocks": _blocks(500, _TEXT),
    "messages of 160 results": _blocks(160, {"type": "tool_result", "tool_use_id": "a"}),
    "messages of 1,000 blocks in results": _blocks(
        10, {"type": "tool_result", "tool_use_id": "a", "content": [_TEXT] * 100}
    ),
    "messages of 100,000 blocks in a result": _blocks(
        1, {"type": "tool_result", "tool_use_id": "a", "content": [_TEXT] * 100_000}
    ),
    "messages with a system of 8 MB": lazy(
        MESSAGES, lambda: {**_HELLO, "system": "hello " * 1_400_000}
    ),
    "8 MB to count": _blocks(
        1, {"type": "text", "text": "hello " * 1_400_000}, f"{MESSAGES}/count_tokens"
    ),
    "messages with 2,000 tools": lazy(MESSAGES, lambda: _input_schemas(2_000)),
    "messages with 100 tools, any": lazy(MESSAGES, lambda: _input_schemas(100)),
    "messages with an enum of 200,000": lazy(
        MESSAGES,
        lambda: {
            **_HELLO,
            "output_config": {
                "format": {
                    "type": "json_schema",
                    "schema": {"enum": [f"value-{n}" for n in range(200_000)]},
                }
            },
        },
    ),
    "messages with a pattern {1,500}": lazy(
        MESSAGES,
        lambda: {
            **_HELLO,
            "output_config": {
                "format": {
                    "type": "json_schema",
                    "schema": {"type": "string", "pattern": "^[a-z]{1,500}$"},
                }
            },
        },
    ),
    # JSON
    "1e6 keys": lazy(CHAT, lambda: {**_HELLO, "metadata": {f"k{n}": n for n in range(1_000_000)}}),
    "1e6 keys beside an image": lazy(
        CHAT,
        lambda: {
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            "metadata": {f"k{n}": n for n in range(1_000_000)},
        },
    ),
    "1e6 empty lists": _raw(
        CHAT, lambda model: f'{{"model":"{model}","messages":[{"[]," * 10**6}[]]}}'
    ),
    "1e7 numbers": _raw(
        COMPLETIONS, lambda model: f'{{"model":"{model}","prompt":[{"1," * 10**7}1]}}'
    ),
    "1e7 lists": _raw(CHAT, lambda model: f'{{"model":"{model}","messages":[{"[]," * 10**7}[]]}}'),
    "1e7 lists as a tier": _raw(
        CHAT, lambda model: f'{{"model":"{model}","service_tier":[{"[]," * 10**7}[]]}}'
    ),
    "30 MB of escapes": _raw(
        CHAT, lambda model: f'{{"model":"{model}","messages":"{LINE_END * 15 * 10**6}"}}'
    ),
    "/v4, 1e7 lists": _raw(
        CREATE, lambda model: f'{{"model":"{model}","prompt":[{"[]," * 10**7}[]]}}'
    ),
    "/v4, 30,000 lists": _raw(
        CREATE, lambda model: f'{{"model":"{model}","prompt":[{"[]," * 30_000}[]]}}'
    ),
    "/v4, 300,000 keys in a parameter": lazy(
        CREATE,
        lambda: {
            "prompt": "hi",
            "model_parameters": {"temperature": {f"k{n}": n for n in range(300_000)}},
        },
    ),
    "/v4, 30 MB of two bytes": _raw(
        CREATE, lambda model: f'{{"model":"{model}","prompt":"{ACCENT * 15 * 10**6}"}}'
    ),
    "/v4, 8 MB of two bytes": _raw(
        CREATE, lambda model: f'{{"model":"{model}","prompt":"{ACCENT * 4 * 10**6}"}}'
    ),
    "/v4, a URL of 30 MB": lazy(
        CREATE, lambda: {"prompt": "hi", "images": [{"image_url": "data:," + "a" * 30 * 10**6}]}
    ),
    "/v4 chat, 30 MB of two bytes": _raw(
        CHAT_V4,
        lambda model: f'{{"model":"{model}","messages":[{{"content":"{ACCENT * 15 * 10**6}"}}]}}',
    ),
    "900 levels of lists": _raw(
        CHAT, lambda model: f'{{"model":"{model}","messages":{"[" * 900}{"]" * 900}}}'
    ),
    "100,000 levels of lists": _raw(
        CHAT, lambda model: f'{{"model":"{model}","messages":{"[" * 100_000}{"]" * 100_000}}}'
    ),
    "a number of 1e6 digits": _raw(
        COMPLETIONS, lambda model: f'{{"model":"{model}","prompt":"hi","seed":{"7" * 10**6}}}'
    ),
    # the tokenizer's endpoints
    "/tokenize 8 MB": lazy(TOKENIZE, lambda: {"prompt": "hello " * 1_400_000}),
    "/tokenize 100,000 messages": lambda model: (TOKENIZE, _chat(100_000)(model)[1]),
    "/tokenize 1 MB with strings": lazy(
        TOKENIZE, lambda: {"prompt": "hello " * 170_000, "return_token_strs": True}
    ),
    "/detokenize 2e6": lazy(DETOKENIZE, lambda: {"tokens": [5] * 2_000_000}),
    "/detokenize 100,000": lazy(DETOKENIZE, lambda: {"tokens": [5] * 100_000}),
}

# A few of every kind; the test of every day takes the first four.
SHORT = (
    "8 MB prompt, truncate_prompt_tokens 10",
    "enum of 200,000",
    "1e6 keys",
    "answer: 32,768 prompt_logprobs",
    "100,000 messages",
    "100,000 parts",
    "/v4, 1e6 unknown fields",
    "pattern {1,5000}",
    "200 structural tags",
    "/tokenize 8 MB",
    "1,000 prompts",
    "answer: 12 x 900 tokens, 20 logprobs",
    "messages of 100,000 blocks in a result",
    "messages with an enum of 200,000",
)
