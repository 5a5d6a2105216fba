"""The openai package, unmodified: completions and chats with every kind of ID."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import httpx
import openai
import pydantic
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


@pytest.mark.parametrize("model", [BASE, ALIAS, PIRATE, INSTRUCT])
def test_a_response_and_its_stream(client: openai.OpenAI, model: str) -> None:
    whole = client.responses.create(
        model=model, input="Hello!", temperature=0, max_output_tokens=40
    )
    assert (whole.model, whole.object) == (model, "response")
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens > 1
    with client.responses.stream(
        model=model, input="Hello!", temperature=0, max_output_tokens=40
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == whole.output_text
    assert final.usage == whole.usage
    if model == INSTRUCT:
        assert whole.output_text.strip() == "Hello! How can I help you today?"
        assert whole.status == "completed"


class Way(pydantic.BaseModel):
    """What an answer is parsed as."""

    way: Literal["left", "right"]


def test_a_response_is_parsed(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model=INSTRUCT, input="Left or right?", text_format=Way, temperature=0
    )
    assert parsed.output_parsed is not None
    assert parsed.output_parsed.way in ("left", "right")


def test_responses_are_not_stored(client: openai.OpenAI) -> None:
    given = client.responses.create(model=INSTRUCT, input="Hello!", store=False)
    for call in (
        client.responses.retrieve,
        client.responses.delete,
        client.responses.cancel,
        client.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError, match="not stored here"):
            call(given.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=INSTRUCT, input="And?", previous_response_id=given.id)
    assert refused.value.param == "previous_response_id"
    again = client.responses.create(
        model=INSTRUCT,
        input=[
            {"role": "user", "content": "Hello!"},
            {"role": "assistant", "content": given.output_text},
            {"role": "user", "content": "Hello!"},
        ],
    )
    assert again.output_text


def test_azures_client_has_responses_too(live: Server, wire: Counting) -> None:
    azure = openai.AzureOpenAI(
        api_key=KEY, azure_endpoint=live.url, api_version="2025-04-01-preview", http_client=wire
    )
    answer = azure.responses.create(model=INSTRUCT, input="Hello!", temperature=0)
    assert answer.output_text.strip() == "Hello! How can I help you today?"


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
