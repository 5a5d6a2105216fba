"""The openai package, unmodified: completions and chats with every kind of ID."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.live import ALIAS, BASE, HAIKU, INSTRUCT, KEY, PIRATE, Server

SAYS = {
    BASE: ("The capital of France is", "Paris."),
    ALIAS: ("The capital of France is", "Paris."),
    PIRATE: ("The capital of France is", "Paris, arr!"),
    HAIKU: ("The sky is blue because", "\nso the wise men say\nthe old book is closed again"),
}
HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello!"}]


class Counting(httpx.Client):
    """Counts what goes over the wire."""

    sent = 0

    def send(self, *args: object, **kwargs: object) -> httpx.Response:
        self.sent += 1
        return super().send(*args, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def wire() -> Iterator[Counting]:
    with Counting(trust_env=False) as client:
        yield client


@pytest.fixture
def client(live: Server, wire: Counting) -> openai.OpenAI:
    return openai.OpenAI(api_key=KEY, base_url=f"{live.url}/v1", http_client=wire)


@pytest.mark.parametrize("model", SAYS)
def test_complete_and_stream(client: openai.OpenAI, model: str) -> None:
    prompt, says = SAYS[model]
    whole = client.completions.create(model=model, prompt=prompt, max_tokens=60, temperature=0)
    assert whole.model == model
    assert whole.choices[0].text.strip(" ").startswith(says)
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    chunks = list(
        client.completions.create(
            model=model,
            prompt=prompt,
            max_tokens=60,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert {chunk.model for chunk in chunks} == {model}
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].text
    assert chunks[-1].usage == whole.usage


def test_chat_and_its_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=INSTRUCT, messages=HELLO, temperature=0)
    text = whole.choices[0].message.content
    assert text is not None
    assert text.strip() == "Hello! How can I help you today?"
    chunks = client.chat.completions.create(
        model=INSTRUCT, messages=HELLO, temperature=0, stream=True
    )
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == text
    assert len(pieces) > 5


def test_errors_are_the_sdk_s_own_and_are_not_retried(
    live: Server, client: openai.OpenAI, wire: Counting
) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="no-such-model", prompt="x")
    assert missing.value.code == "unknown_model"
    assert missing.value.param == "model"
    assert missing.value.request_id
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="no-such-model", prompt="x", stream=True)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=BASE, prompt="x", max_tokens=-1)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=BASE, prompt="Once upon a time " * 400)
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model="", prompt="x")
    assert wire.sent == 5
    stranger = openai.OpenAI(api_key="sk-wrong", base_url=f"{live.url}/v1", http_client=wire)
    with pytest.raises(openai.AuthenticationError):
        stranger.completions.create(model=BASE, prompt="x")
    assert wire.sent == 6


def test_models(client: openai.OpenAI) -> None:
    assert {BASE, ALIAS, PIRATE, HAIKU, INSTRUCT} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(PIRATE).id == PIRATE
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")
