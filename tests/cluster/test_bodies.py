"""Hostile OpenAI bodies: one real engine by itself, and what the whole service answers to some.

`make fuzz-bodies` sends more of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.cluster.envelopes import openai_error_of
from tests.hostile import REFUSED
from tests.live import BASE, PIRATE, ROOT, Server

FUZZ = (sys.executable, "-m", "tests.fuzz_bodies")
CASES = {
    "vllm": 2000,
    "scale": 600,
    "embed": 400,
    "score": 400,
    "tools": 400,
    "transformers": 400,
    "vision": 400,
}
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"
PATTERN = {"max_pattern_size": 2**70, "min_count": 2}
PROMPT = {"prompt": "Once upon a time", "max_tokens": 4}
MESSAGES = {"messages": [{"role": "user", "content": "France"}], "max_tokens": 4}


@pytest.mark.parametrize(
    "engine",
    [pytest.param(name, marks=[pytest.mark.long] if name == "vision" else []) for name in CASES],
)
def test_no_body_ends_in_an_error_of_ours_or_leaves_anything(engine: str) -> None:
    cases, named = CASES[engine], engine == "vllm"
    done = subprocess.run(
        [*FUZZ, "--engine", engine, "--cases", str(cases), *(["--refused"] * named)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["cases"] >= cases
    assert report["bystander"]["first"]["count"] >= cases / 8
    # Before all others, one by one.
    assert report["refused"] == (list(REFUSED) if named else [])
    # Not all were refused: then nothing would have reached the engine.
    assert report["statuses"]["200"] > cases / 20
    assert report["statuses"]["400"] + report["statuses"].get("422", 0) > cases / 20


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [BASE, PIRATE])
@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        (TEXT, {"logprobs": 30}, "greater than max allowed: 20"),
        (TEXT, {"logprobs": -1}, "logprobs"),
        (TEXT, {"structured_outputs": {"regex": "("}}, "regex"),
        (TEXT, {"structured_outputs": {"json": {"type": "nonsense"}}}, "nonsense"),
        (TEXT, {"structured_outputs": {"json": {"$ref": "#"}}}, "refers to itself"),
        (TEXT, {"structured_outputs": False}, "'structured_outputs': must be an object"),
        (TEXT, {"prompt": [99_999_999]}, "out of vocabulary"),
        (TEXT, {"n": 3000}, "'n': is 3000; at most 128 choices of a prompt are taken"),
        (TEXT, {"top_k": 2**70}, "'top_k': has an integer of more than 64 bits"),
        (TEXT, {"repetition_detection": PATTERN}, "an integer of more than 64 bits"),
        (TEXT, {"vllm_xargs": {"a": {"b": 1}}}, "vllm_xargs"),
        (CHAT, {"logprobs": True, "top_logprobs": 30}, "greater than max allowed: 20"),
        (CHAT, {"repetition_detection": PATTERN}, "an integer of more than 64 bits"),
        (CHAT, {"stop_token_ids": [10**9]}, "out-of-vocab"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "json_schema"),
        (CHAT, {"messages": [{"role": "user", "content": "a"}] * 1025}, "1025 messages"),
        (CHAT, {"tools": [{}], "tool_choice": {"function": {"name": "a"}}}, "takes no tools"),
    ],
)
def test_a_bad_parameter_is_400_before_the_first_byte(
    live: Server, path: str, model: str, stream: bool, fields: dict[str, Any], said: str
) -> None:
    base = PROMPT if path == TEXT else MESSAGES
    response = live.post(path, **{"model": model, **base, **fields, "stream": stream})
    error = openai_error_of(response, 400)
    assert said in error["message"], error
    assert error["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "%s", "prompt": "a", "stop": "\xed\xa0\x80"}',
        b'{"model": "%s", "prompt": "a", "session_id": "\xed\xa0\x80"}',
        b'{"model": "%s", "prompt": "a", "vllm_xargs": {"a": "\xed\xa0\x80"}}',
        b'{"model": "%s", "x": NaN}',
    ],
)
def test_a_body_that_no_parser_takes_has_openais_envelope(live: Server, body: bytes) -> None:
    response = live.client.post(live.url + TEXT, content=body % BASE.encode())
    error = openai_error_of(response, 400)
    assert error["request_id"] == response.headers["x-request-id"]
