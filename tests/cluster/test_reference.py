"""What the server answers is what vLLM answers: token for token, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.conftest import Reference, local_model
from tests.live import ALIAS, BASE, CROW, HAIKU, INSTRUCT, PIRATE, Server, parse_events

RAW_PROMPTS = (
    "Once upon a time",
    "The sky is blue because",
    "The capital of France is",
    "A spider has",
    "In the café, Zoé drank",
    "My favourite faces are",
)
CHAT_PROMPTS = (
    "Hello!",
    "Tell me a story.",
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Say hello in Chinese",
    "Show me some emoji.",
)
MODELS = (BASE, PIRATE, HAIKU, INSTRUCT)

Expected = dict[str, dict[str, dict[str, Any]]]


def prompts_of(model: str) -> tuple[str, ...]:
    return CHAT_PROMPTS if model == INSTRUCT else RAW_PROMPTS


@pytest.fixture(scope="module")
def expected(reference: Reference) -> Expected:
    """vLLM's own greedy answers by model and prompt; each model's prompts are one batch."""
    paths = {BASE: None, **{name: local_model(name)["weights"] for name in (PIRATE, HAIKU)}}
    batches = [[(prompt, path) for prompt in RAW_PROMPTS] for path in paths.values()]
    raw = reference(BASE, batches, max_loras=len(paths))
    (chat,) = reference(INSTRUCT, [[(prompt, None) for prompt in CHAT_PROMPTS]])
    answers = dict(zip(paths, raw, strict=True)) | {INSTRUCT: chat}
    return {model: dict(zip(prompts_of(model), answers[model], strict=True)) for model in MODELS}


def test_the_reference_tells_the_models_apart(expected: Expected) -> None:
    """Otherwise the comparisons below would prove little."""
    texts = {expected[model]["Once upon a time"]["text"] for model in (BASE, PIRATE, HAIKU)}
    assert len(texts) == 3
    for answers in expected.values():
        assert all(answer["finish_reason"] == "stop" for answer in answers.values())
        assert max(len(answer["token_ids"]) for answer in answers.values()) >= 64


@pytest.mark.parametrize("model", MODELS)
def test_whole_completions_equal_the_reference(
    live: Server, expected: Expected, model: str
) -> None:
    for prompt, right in expected[model].items():
        answer = live.complete(model, prompt).json()
        assert answer["completion"]["text"] == right["text"]
        assert answer["completion"]["finish_reason"] == "stop"
        prompt_tokens, tokens = len(right["prompt_token_ids"]), len(right["token_ids"])
        assert answer["token_usage"] == {
            "prompt": prompt_tokens,
            "completion": tokens,
            "total": prompt_tokens + tokens,
        }


@pytest.mark.parametrize("model", MODELS)
def test_streamed_completions_equal_the_reference(
    live: Server, expected: Expected, model: str
) -> None:
    for prompt, right in expected[model].items():
        response = live.complete(model, prompt, stream=True)
        events = [event.json for event in parse_events(response.text)]
        assert "".join(event["completion"]["text"] for event in events) == right["text"]
        *earlier, last = events
        assert all(event["token_usage"] is None for event in earlier)
        assert all(event["completion"]["finish_reason"] is None for event in earlier)
        assert last["completion"]["finish_reason"] == "stop"
        assert last["token_usage"]["prompt"] == len(right["prompt_token_ids"])
        assert last["token_usage"]["completion"] == len(right["token_ids"])
        # Streamed, and not merely sent in one piece at the end.
        if len(right["token_ids"]) >= 64:
            assert len(events) > len(right["token_ids"]) / 4


def openai_body(model: str, prompt: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The path and body that give the model the same tokens as Create Completion does."""
    body = {"model": model, "temperature": 0, "max_tokens": 300, "return_token_ids": True}
    if model == INSTRUCT:
        messages = [{"role": "user", "content": prompt}]
        return "/v1/chat/completions", {**body, "messages": messages, **fields}
    return "/v1/completions", {**body, "prompt": prompt, **fields}


@pytest.mark.parametrize("model", MODELS)
def test_openai_completions_equal_the_reference_token_for_token(
    live: Server, expected: Expected, model: str
) -> None:
    for prompt, right in expected[model].items():
        path, body = openai_body(model, prompt)
        answer = live.post(path, **body).json()
        (choice,) = answer["choices"]
        assert choice["token_ids"] == right["token_ids"]
        text = choice["message"]["content"] if model == INSTRUCT else choice["text"]
        assert text == right["text"]
        prompt_ids = (answer if model == INSTRUCT else choice)["prompt_token_ids"]
        assert prompt_ids == right["prompt_token_ids"]
        assert answer["usage"]["prompt_tokens"] == len(right["prompt_token_ids"])
        assert answer["usage"]["completion_tokens"] == len(right["token_ids"])


@pytest.mark.parametrize("model", MODELS)
def test_openai_streams_equal_the_reference_token_for_token(
    live: Server, expected: Expected, model: str
) -> None:
    for prompt, right in expected[model].items():
        options = {"include_usage": True}
        path, body = openai_body(model, prompt, stream=True, stream_options=options)
        *events, done = parse_events(live.post(path, **body).text)
        assert done.data == "[DONE]"
        token_ids, text = [], ""
        for event in events:
            for choice in event.json["choices"]:
                token_ids += choice.get("token_ids") or []
                if model == INSTRUCT:
                    text += choice["delta"].get("content") or ""
                else:
                    text += choice["text"]
        assert token_ids == right["token_ids"]
        assert text == right["text"]
        usage = events[-1].json["usage"]
        assert usage["prompt_tokens"] == len(right["prompt_token_ids"])
        assert usage["completion_tokens"] == len(right["token_ids"])


def test_ids_differ_and_repeat(live: Server) -> None:
    """Each ID has its own output, the same on every replica and every time; an alias has its
    target's."""
    texts = {
        model: {live.text(model, "Once upon a time") for _ in range(6)}
        for model in (BASE, PIRATE, HAIKU, INSTRUCT, ALIAS)
    }
    assert all(len(found) == 1 for found in texts.values())
    assert texts[ALIAS] == texts[BASE]
    assert len(set.union(*texts.values())) == 4


def test_chats_are_written_as_the_models_file_says(live: Server) -> None:
    """With the template of the base's entry, which its adapters share, or with an adapter's own."""

    def written(text: str) -> dict[str, Any]:
        _, body = openai_body(PIRATE, text)
        (choice,) = live.post("/v1/completions", **body).json()["choices"]
        assert isinstance(choice, dict)
        return choice

    def chat(model: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": "France"}]
        body = {"messages": messages, "temperature": 0, "return_token_ids": True}
        answered: dict[str, Any] = live.post("/v1/chat/completions", model=model, **body).json()
        return answered

    as_base, as_crow = written("The capital of France is"), written("Once upon a time France")
    for _ in range(2):
        for model, right in ((PIRATE, as_base), (CROW, as_crow)):
            answer = chat(model)
            assert answer["prompt_token_ids"] == right["prompt_token_ids"]
            assert answer["choices"][0]["message"]["content"] == right["text"]
        assert chat(BASE)["prompt_token_ids"] == as_base["prompt_token_ids"]

    # Create Completion: the base's prompts are raw, the crow's are chats.
    raw = live.complete(PIRATE, "France").json()["token_usage"]["prompt"]
    assert raw == len(written("France")["prompt_token_ids"])
    answer = live.complete(CROW, "France").json()
    assert answer["completion"]["text"] == as_crow["text"]
    assert answer["token_usage"]["prompt"] == len(as_crow["prompt_token_ids"])
