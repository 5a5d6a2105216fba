"""Turns Create Completion's prompts, and chats, into token IDs with a checkpoint's tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from serving.engine.prompt_size import PromptSize
from serving.errors import BadAdapter, BadTemplate, InvalidRequest
from serving.wire.messages import PromptFormat

AS_THE_BASE = PromptFormat()


class Prompts:
    """One model's tokenizer and prompt format.

    Args:
        tokenizer: a tokenizer of transformers.
        style: `raw` or `chat`, see `EngineSpec.prompt_style`.
        template: the chat template, if there is one.
        context: in tokens.
        fixed: True if code writes the chats, in a format that no template changes.
        in_parts: True if the template wants a message's content as a list of parts.

    Raises:
        ValueError: the style is `chat` and there is no template.
    """

    def __init__(
        self,
        tokenizer: Any,
        style: str,
        template: str | None,
        context: int,
        *,
        fixed: bool = False,
        in_parts: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self.size = PromptSize(tokenizer, context)
        self._style = style
        self._template = template
        self._in_parts = in_parts
        self._fixed = fixed
        self._can_chat = template is not None or fixed
        if style == "chat" and not self._can_chat:
            raise ValueError(
                "prompt_style is chat, and neither the checkpoint nor `chat_template` has a "
                "template; add `chat_template`"
            )

    def check(self, own: PromptFormat) -> None:
        """Refuse an adapter's prompt format that does not work on this model.

        Raises:
            BadAdapter: the adapter's prompts cannot be written as its entry says.
        """
        if own.chat_template is not None and self._fixed:
            raise BadAdapter(
                "this fine-tuned model's base writes chats without a template; remove its "
                "`chat_template`"
            )
        if own.style == "chat" and own.chat_template is None and not self._can_chat:
            raise BadAdapter(
                "this fine-tuned model's prompt_style is chat, and its base has no chat template; "
                "give it a `chat_template`"
            )

    async def encode(self, prompt: str, own: PromptFormat = AS_THE_BASE) -> list[int]:
        """The token IDs of Create Completion's prompt: as it is, or as one user message of a chat.

        Args:
            own: the adapter's own prompt format.

        Raises:
            BadAdapter: as `check`.
            InvalidRequest: the template refuses the prompt.
        """
        self.check(own)
        if (own.style or self._style) == "raw":
            return await self.encode_text(prompt)
        content = [{"type": "text", "text": prompt}] if self._in_parts else prompt
        message = {"role": "user", "content": content}
        return await self._through_template([message], len(prompt), "prompt", own.chat_template)

    async def encode_text(self, text: str) -> list[int]:
        """The token IDs of the text as it is, with the special tokens that the tokenizer adds."""
        return await self.size.tokenize(len(text), lambda: list(self._tokenizer.encode(text)))

    async def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The token IDs of a chat, written with the chat template.

        Raises:
            InvalidRequest: there is no template, or it refuses these messages.
        """
        if not self._can_chat:
            raise InvalidRequest("this model has no chat template; use /v1/completions")
        length = sum(len(message["content"]) for message in messages)
        return await self._through_template(messages, length, "messages", None)

    async def _through_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        characters: int,
        param: str,
        template: str | None,
    ) -> list[int]:
        def encode() -> list[int]:
            return list(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=template or self._template,
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=False,
                )
            )

        try:
            return await self.size.tokenize(characters, encode)
        except TemplateSyntaxError as error:
            where = "this fine-tuned model's" if template else "the model's"
            raise BadTemplate(f"{where} chat_template is not valid: {error}") from None
        except TemplateError as error:
            # A template refuses what it does not know, such as a role, with a message of its own.
            raise InvalidRequest(f"the chat template: {error}", param=param) from None
