"""What Anthropic's Messages have of their own: content blocks, and blocks in the results of tools.

vLLM's models leave the results of tools open (`list[dict]`), read from them what they know, and
drop the rest or fail on it. Here each block is one that vLLM passes on, or the body is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from serving.errors import InvalidRequest

# Anthropic's Create a Message, and Count tokens in a Message.
PATHS = frozenset(("/v1/messages", "/v1/messages/count_tokens"))
_IN_RESULTS = frozenset(("text", "image", "tool_reference"))
# They change the tools in the middle of a conversation, past all that is checked of `tools`.
_TOOL_CHANGES = ("tool_addition", "tool_removal")
# Fields that change the answer and that vLLM does not know: it would leave them out.
_UNKNOWN = {
    "mcp_servers": "no server of tools is asked from here; call the tools and send their results",
    "container": "there are no containers here",
    "output_format": "is taken by its newer name alone: output_config.format",
}
MAX_SHOWN = 64


def check_blocks(given: Mapping[str, Any]) -> None:
    """Check the blocks of a body of Messages, that a tool that must be used is there, and that
    nothing is asked for that is not done.

    Raises:
        InvalidRequest: vLLM would fail on it, or leave something out without a word.
    """
    for name, why in _UNKNOWN.items():
        if given.get(name):
            _refuse(name, why)
    _check_choice(given.get("tool_choice"), given.get("tools"))
    system = given.get("system")
    for block in system if type(system) is list else ():
        if type(block) is dict and block.get("type") != "text":
            _refuse("system", "takes text blocks only")
    messages = given.get("messages")
    for message in messages if type(messages) is list else ():
        content = message.get("content") if type(message) is dict else None
        for block in content if type(content) is list else ():
            if type(block) is dict:
                _check_block(block, message.get("role"))


def _check_choice(choice: Any, tools: Any) -> None:
    kind = choice.get("type") if type(choice) is dict else None
    if kind not in ("any", "tool"):
        return
    names = [one.get("name") for one in tools if type(one) is dict] if type(tools) is list else []
    if not names:
        _refuse("tool_choice", f"is of the type {kind}, which needs 'tools'")
    if kind == "tool" and choice.get("name") not in names:
        _refuse("tool_choice", "names a tool that is not among 'tools'")


def _check_block(block: dict[str, Any], role: Any) -> None:
    kind = block.get("type")
    if kind in _TOOL_CHANGES:
        _refuse("messages", f"takes no {kind} block; list the tools in 'tools'")
    if role == "system" and kind != "text":
        _refuse("messages", "takes text blocks only in a system message")
    if kind == "image":
        _check_image(block)
    if kind != "tool_result":
        return
    if role != "user":
        _refuse("messages", "has a tool_result block that is not in a user message")
    content = block.get("content")
    for one in content if type(content) is list else ():
        kind = one.get("type") if type(one) is dict else None
        if type(kind) is not str or kind not in _IN_RESULTS:
            found = f"of the type '{kind[:MAX_SHOWN]}'" if type(kind) is str else "without a type"
            wanted = ", ".join(sorted(_IN_RESULTS))
            _refuse("messages", f"has a block {found} in a tool_result; it takes {wanted}")
        if kind == "text" and type(one.get("text")) is not str:
            _refuse("messages", "has a text block without 'text', which is a string")
        if kind == "image":
            _check_image(one)
        if kind == "tool_reference" and type(one.get("tool_name")) is not str:
            _refuse("messages", "has a tool_reference block without 'tool_name'")


def _check_image(block: dict[str, Any]) -> None:
    source = block.get("source")
    source = source if type(source) is dict else {}
    kind = source.get("type")
    wanted = {"base64": "data", "url": "url"}.get(kind) if type(kind) is str else None
    if wanted is None or not _is_text(source.get(wanted)):
        _refuse(
            "messages",
            "has an image block without a source of the type base64 (with 'media_type' and 'data') "
            "or url (with 'url')",
        )


def _is_text(value: Any) -> bool:
    return type(value) is str and bool(value)


def nested(block: Any) -> int:
    """How many blocks a block of a message holds."""
    content = block.get("content") if type(block) is dict else None
    return len(content) if type(content) is list else 0


def _refuse(name: str, message: str) -> NoReturn:
    raise InvalidRequest(f"'{name}': {message}", param=name)
