"""The format in which vLLM writes a model's chats; its renderer decides it."""

from __future__ import annotations

from typing import NamedTuple

from vllm.renderers import BaseRenderer

from serving.catalogue.spec import EngineSpec
from serving.engine.vllm.patches.renderer import (
    chat_template,
    has_templates,
    uses_templates,
    wants_parts,
)


class ChatFormat(NamedTuple):
    """`template`: see `patches.renderer.chat_template`. `fixed`: code writes the chats, without a
    template, so no other template can take its place. `in_parts`: the template wants a message's
    content as a list of parts."""

    template: str | None
    fixed: bool
    in_parts: bool


def chat_format(spec: EngineSpec, renderer: BaseRenderer) -> ChatFormat:
    """The format of a model's chats.

    Raises:
        ValueError: the spec has a template, which this model would ignore.
    """
    fixed = not uses_templates(renderer)
    if fixed and spec.chat_template is not None:
        raise ValueError(
            f"model '{spec.id}': chat_template: vLLM writes this model's chats without a "
            "template; remove it"
        )
    if not has_templates(renderer):
        return ChatFormat(None, fixed, in_parts=False)
    template = chat_template(renderer, spec.chat_template)
    # A checkpoint's tokenizer may write its chats in code of its own.
    written_by = type(renderer.get_tokenizer()).apply_chat_template.__module__
    own_code = not written_by.startswith("transformers.")
    in_parts = False
    if spec.vision and spec.prompt_style == "chat":
        in_parts = wants_parts(renderer, spec.chat_template)
    return ChatFormat(template, fixed or (template is None and own_code), in_parts)
