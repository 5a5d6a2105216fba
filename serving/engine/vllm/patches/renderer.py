"""What is borrowed of vLLM's renderer, which makes the engine's input of chats and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image
from vllm.renderers import BaseRenderer, ChatParams, TokenizeParams
from vllm.renderers.hf import (
    HfRenderer,
    resolve_chat_template,
    resolve_chat_template_content_format,
)


def uses_templates(renderer: BaseRenderer) -> bool:
    """False for models whose chats vLLM writes in code. gpt-oss has the common renderer, but
    vLLM's chat endpoint writes its chats in code too."""
    model_type = renderer.model_config.hf_config.model_type
    return isinstance(renderer, HfRenderer) and model_type != "gpt_oss"


def has_templates(renderer: BaseRenderer) -> bool:
    """True for the renderer that has a text form of a chat."""
    return isinstance(renderer, HfRenderer)


def chat_template(renderer: BaseRenderer, given: str | None) -> str | None:
    """The template that vLLM uses: the given one, the processor's, the tokenizer's, or vLLM's own
    for such a model."""
    found = resolve_chat_template(
        renderer.get_tokenizer(), given, None, model_config=renderer.model_config
    )
    return None if found is None else str(found)


def wants_parts(renderer: BaseRenderer, given: str | None) -> bool:
    """True if the template wants a message's content as a list of parts, as vLLM finds by reading
    it."""
    form = resolve_chat_template_content_format(
        given, None, "auto", renderer.get_tokenizer(), model_config=renderer.model_config
    )
    return bool(form == "openai")


async def render_chat(
    renderer: BaseRenderer, content: Sequence[Mapping[str, Any]], template: str | None
) -> dict[str, Any]:
    """The engine's input for one user message.

    vLLM's renderer puts the placeholders of a model's images in their places. There is no limit on
    length here: the length is checked later, with the images' tokens.
    """
    # Mistral's own tokenizer has no text form of a chat.
    arguments = {"add_generation_prompt": True, "tokenize": not has_templates(renderer)}
    _, (rendered,) = await renderer.render_chat_async(
        [[{"role": "user", "content": list(content)}]],
        ChatParams(chat_template=template, chat_template_kwargs=arguments),
        TokenizeParams(max_total_tokens=None, add_special_tokens=False),
    )
    return dict(rendered)


async def render_prompt(
    renderer: BaseRenderer, prompt: str, images: Sequence[Image]
) -> dict[str, Any]:
    """The engine's input for a raw prompt; without a limit on length, as `render_chat`."""
    (rendered,) = await renderer.render_cmpl_async(
        [{"prompt": prompt, "multi_modal_data": {"image": list(images)}}],
        TokenizeParams(max_total_tokens=None, add_special_tokens=True),
    )
    return dict(rendered)


def image_placeholder(renderer: BaseRenderer) -> str | None:
    """What stands for an image in a prompt; None where the processor puts images itself."""
    processor = renderer.get_mm_processor().info.get_hf_processor()
    return getattr(processor, "boi_token", None) or getattr(processor, "image_token", None)
