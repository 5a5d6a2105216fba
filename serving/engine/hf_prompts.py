"""Prompts to token IDs, and token IDs back to text, with a checkpoint's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from serving.engine.hf_text import Detokenizer
from serving.engine.prompt_size import PromptSize
from serving.errors import InvalidRequest


class Prompts:
    """One model's tokenizer and its way with prompts.

    Args:
        tokenizer: of transformers.
        style: `raw` or `chat`, see `EngineSpec.prompt_style`.
        template: replaces the tokenizer's own chat template.
        context: in tokens.

    Raises:
        ValueError: the style is `chat` and there is no template.
    """

    def __init__(self, tokenizer: Any, style: str, template: str | None, context: int) -> None:
        self._tokenizer = tokenizer
        self._size = PromptSize(tokenizer, context)
        self._style = style
        self._template: str | None = template or tokenizer.chat_template
        self._special = frozenset(tokenizer.all_special_ids)
        if style == "chat" and self._template is None:
            raise ValueError(
                "prompt_style is chat, and neither the checkpoint nor "
                "`chat_template` has a template"
            )

    async def encode(self, prompt: str) -> list[int]:
        """Create Completion's prompt, as the model wants it: as is, or as one user message."""
        if self._style == "raw":
            return await self.encode_text(prompt)
        return await self.encode_chat([{"role": "user", "content": prompt}])

    async def encode_text(self, text: str) -> list[int]:
        """The text as it is, with the special tokens that the tokenizer adds."""
        return await self._size.tokenize(len(text), lambda: list(self._tokenizer.encode(text)))

    async def encode_chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Messages through the chat template.

        Raises:
            InvalidRequest: there is no template, or it refuses these messages.
        """
        if self._template is None:
            raise InvalidRequest("this model has no chat template; use /v1/completions")
        try:
            return await self._size.tokenize(
                sum(len(message["content"]) for message in messages),
                lambda: list(
                    self._tokenizer.apply_chat_template(
                        list(messages),
                        chat_template=self._template,
                        add_generation_prompt=True,
                        tokenize=True,
                        return_dict=False,
                    )
                ),
            )
        except TemplateError as error:
            # Templates refuse what they do not know, such as a role, with a message.
            raise InvalidRequest(f"the chat template: {error}", param="messages") from None

    def detokenizer(self, before: Sequence[int]) -> Detokenizer:
        """For the tokens of a completion that continues `before`."""
        return Detokenizer(self._decode, self._special, before)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text
