"""What ours answers whole is what bare vLLM answers: for a base model, its adapter and an instruct
model. Tools and reasoning stand in `test_tools.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from loadtests.stacks import Model, Stack, bare
from tests.cluster.conftest import local_model
from tests.live import BASE, INSTRUCT, PIRATE, Server

# What is another one for each answer, and vLLM's fingerprint of its own arguments.
OWN = ("id", "item_id", "created", "created_at", "completed_at", "system_fingerprint")
Ask = Callable[[str, dict[str, Any]], httpx.Response]

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "capital": {"type": "string"}},
    "required": ["name", "capital"],
}
FORMAT = {"type": "json_schema", "name": "country", "schema": SCHEMA}
ASKED = [{"role": "user", "content": "What is the capital of France?"}]
SEEDED = {"temperature": 0.8, "seed": 7, "max_tokens": 12}

RAW: dict[str, tuple[str, dict[str, Any]]] = {
    "greedy": ("/v1/completions", {"prompt": "Once upon a time"}),
    "short": ("/v1/completions", {"prompt": "A spider has", "max_tokens": 3}),
    "seeded": ("/v1/completions", {"prompt": "A spider has", **SEEDED}),
    "two choices": ("/v1/completions", {"prompt": "A spider has", "n": 2, **SEEDED}),
    "two prompts": ("/v1/completions", {"prompt": ["A spider has", "Once"], "max_tokens": 6}),
    "token IDs": ("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 6}),
    "log probabilities": (
        "/v1/completions",
        {"prompt": "A spider has", "logprobs": 2, "max_tokens": 4},
    ),
    "echo": (
        "/v1/completions",
        {"prompt": "A spider has", "echo": True, "logprobs": 1, "max_tokens": 2},
    ),
    "stop": ("/v1/completions", {"prompt": "Once upon a time", "stop": ["\n", "."]}),
    "tokenize": ("/tokenize", {"prompt": "Once upon a time", "return_token_strs": True}),
    "detokenize": ("/detokenize", {"tokens": [5, 6, 7]}),
}
CHATS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": ASKED}),
    "seeded chat": ("/v1/chat/completions", {"messages": ASKED, "n": 2, **SEEDED}),
    "chat, log probabilities": (
        "/v1/chat/completions",
        {"messages": ASKED, "logprobs": True, "top_logprobs": 2, "max_tokens": 4},
    ),
    "chat, JSON": (
        "/v1/chat/completions",
        {
            "messages": ASKED,
            "response_format": {"type": "json_schema", "json_schema": FORMAT},
        },
    ),
    "completion": ("/v1/completions", {"prompt": "Hello", "max_tokens": 6}),
    "message": ("/v1/messages", {"messages": ASKED, "max_tokens": 40}),
}
# Answered in one piece by all.
WHOLE = ("/tokenize", "/detokenize")
CASES = [
    *((model, name, *RAW[name]) for model in (BASE, PIRATE) for name in RAW),
    *((INSTRUCT, name, *CHATS[name]) for name in CHATS),
]
IDS = [f"{model} {name}" for model, name, *_ in CASES]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`vllm serve` with the base model and one of its adapters."""
    spec = local_model(BASE)
    file = {"models": [spec, local_model(PIRATE)]}
    stack = bare(Model(BASE, PIRATE, spec, file), tmp_path_factory.mktemp("bare"))
    stack.wait_until_ready()
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`vllm serve` with the instruct model."""
    model = Model(INSTRUCT, None, local_model(INSTRUCT), {})
    stack = bare(model, tmp_path_factory.mktemp("bare"))
    stack.wait_until_ready()
    yield stack
    stack.stop()


@pytest.fixture
def theirs(request: pytest.FixtureRequest, model: str) -> Ask:
    stack: Stack = request.getfixturevalue("chats" if model == INSTRUCT else "bases")

    def ask(path: str, body: dict[str, Any]) -> httpx.Response:
        return httpx.post(f"{stack.url}{path}", json={"model": model, **body}, timeout=60)

    return ask


def greedy(path: str, body: dict[str, Any]) -> dict[str, Any]:
    return body if path in WHOLE else {"temperature": 0, **body}


def shared(answer: Any) -> Any:
    """An answer, or an event of one, without what is its own."""
    if isinstance(answer, list):
        return [shared(item) for item in answer]
    if isinstance(answer, dict):
        return {key: shared(value) for key, value in answer.items() if key not in OWN}
    return answer


@pytest.mark.parametrize(("model", "name", "path", "body"), CASES, ids=IDS)
def test_whole(
    live: Server, theirs: Ask, model: str, name: str, path: str, body: dict[str, Any]
) -> None:
    body = greedy(path, body)
    ours, others = live.post(path, model=model, **body), theirs(path, body)
    assert ours.status_code == others.status_code == 200, (ours.text, others.text)
    assert ours.headers["content-type"] == others.headers["content-type"]
    found = shared(ours.json())
    assert found == shared(others.json())
    if path not in WHOLE:
        assert found["model"] == model
        assert found["usage"]
