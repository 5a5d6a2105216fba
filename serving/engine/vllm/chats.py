"""How chats are written for a model that vLLM runs, which is the renderer's to say."""

from __future__ import annotations

from typing import NamedTuple

from vllm.renderers import BaseRenderer
from vllm.renderers.hf import (
    HfRenderer,
    resolve_chat_template,
    resolve_chat_template_content_format,
)

from serving.catalogue.spec import EngineSpec


class ChatFormat(NamedTuple):
    """`template` is the spec's, the processor's, the tokenizer's or vLLM's own for such a model.
    `fixed`: chats are written by code, without a template, so that none can take its place.
    `in_parts`: the template wants a message's content as a list of parts."""

    template: str | None
    fixed: bool
    in_parts: bool


def chat_format(spec: EngineSpec, renderer: BaseRenderer) -> ChatFormat:
    """The format of a model's chats.

    Raises:
        ValueError: the spec has a template, which this model would ignore.
    """
    config, tokenizer = renderer.model_config, renderer.get_tokenizer()
    # vLLM's chat endpoint writes gpt-oss's chats in code (its OnlineRenderer).
    fixed = config.hf_config.model_type == "gpt_oss" or not isinstance(renderer, HfRenderer)
    if fixed and spec.chat_template is not None:
        raise ValueError(
            f"model '{spec.id}': chat_template: vLLM writes this model's chats without a "
            "template; remove it"
        )
    if not isinstance(renderer, HfRenderer):
        return ChatFormat(None, fixed, in_parts=False)
    ours = resolve_chat_template(tokenizer, spec.chat_template, None, model_config=config)
    template = None if ours is None else str(ours)
    # A checkpoint's own code may write its chats in its tokenizer.
    written_by = type(tokenizer).apply_chat_template.__module__
    own_code = not written_by.startswith("transformers.")
    in_parts = False
    if spec.vision and spec.prompt_style == "chat":
        form = resolve_chat_template_content_format(
            spec.chat_template, None, "auto", tokenizer, model_config=config
        )
        in_parts = bool(form == "openai")
    return ChatFormat(template, fixed or (template is None and own_code), in_parts)
