from __future__ import annotations

from typing import Any

import pytest
from jinja2 import TemplateError, TemplateSyntaxError

from serving.engine.prompts import Prompts
from serving.errors import BadAdapter, BadTemplate, ContextLengthExceeded, InvalidRequest
from serving.wire.messages import PromptFormat


class Letters:
    """A tokenizer whose tokens are letters. A template is a prefix of the messages; without one
    the prefix is `own:`."""

    def get_vocab(self) -> dict[str, int]:
        return {chr(letter): letter for letter in range(128)}

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def apply_chat_template(
        self, messages: list[dict[str, Any]], chat_template: str | None, **_: Any
    ) -> list[int]:
        template = chat_template or "own:"
        if template == "refuses":
            raise TemplateError("no such role")
        if template == "broken":
            raise TemplateSyntaxError("unexpected end", 1)
        return self.encode(f"{template}{[message['content'] for message in messages]}")


def text(ids: list[int]) -> str:
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("style", "template", "own", "written"),
    [
        ("raw", None, PromptFormat(), "hi"),
        ("raw", "t:", PromptFormat(), "hi"),
        ("chat", "t:", PromptFormat(), "t:['hi']"),
        ("raw", "t:", PromptFormat("chat"), "t:['hi']"),
        ("raw", "t:", PromptFormat("chat", "a:"), "a:['hi']"),
        ("chat", "t:", PromptFormat(None, "a:"), "a:['hi']"),
        ("chat", "t:", PromptFormat("raw"), "hi"),
    ],
)
async def test_a_prompt_is_written_as_the_model_or_its_adapter_wants(
    style: str, template: str | None, own: PromptFormat, written: str
) -> None:
    prompts = Prompts(Letters(), style, template, 100)
    assert text(await prompts.encode("hi", own)) == written
    # The adapter's format is not the base's.
    assert text(await prompts.encode("hi")) in ("hi", "t:['hi']")
    if template is not None:
        written = text(await prompts.encode_chat([{"content": "a"}, {"content": "b"}]))
        assert written == "t:['a', 'b']"


async def test_content_in_parts() -> None:
    prompts = Prompts(Letters(), "chat", "t:", 100, in_parts=True)
    assert text(await prompts.encode("hi")) == "t:[[{'type': 'text', 'text': 'hi'}]]"


async def test_without_a_template_nothing_can_be_a_chat() -> None:
    with pytest.raises(ValueError, match="add `chat_template`"):
        Prompts(Letters(), "chat", None, 100)
    prompts = Prompts(Letters(), "raw", None, 100)
    with pytest.raises(BadAdapter, match="give it a `chat_template`"):
        await prompts.encode("hi", PromptFormat("chat"))
    with pytest.raises(InvalidRequest, match="use /v1/completions"):
        await prompts.encode_chat([{"content": "hi"}])
    assert text(await prompts.encode("hi", PromptFormat("chat", "a:"))) == "a:['hi']"


async def test_a_tokenizer_that_writes_chats_itself() -> None:
    prompts = Prompts(Letters(), "chat", None, 100, fixed=True)
    assert text(await prompts.encode("hi")) == "own:['hi']"
    with pytest.raises(BadAdapter, match="remove its `chat_template`"):
        await prompts.encode("hi", PromptFormat(None, "a:"))


async def test_a_template_that_is_none() -> None:
    with pytest.raises(BadTemplate, match="the model's chat_template is not valid"):
        await Prompts(Letters(), "chat", "broken", 100).encode("hi")
    with pytest.raises(BadTemplate, match="this fine-tuned model's chat_template"):
        await Prompts(Letters(), "chat", "t:", 100).encode("hi", PromptFormat(None, "broken"))


async def test_what_a_template_refuses() -> None:
    prompts = Prompts(Letters(), "chat", "refuses", 100)
    with pytest.raises(InvalidRequest, match="no such role") as caught:
        await prompts.encode("hi")
    assert caught.value.param == "prompt"
    with pytest.raises(InvalidRequest) as caught:
        await prompts.encode_chat([{"content": "hi"}])
    assert caught.value.param == "messages"


async def test_what_cannot_fit_is_not_tokenized() -> None:
    with pytest.raises(ContextLengthExceeded):
        await Prompts(Letters(), "chat", "t:", 10).encode("x" * 10_000)
