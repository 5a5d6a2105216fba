"""Takes the images out of the content blocks of Anthropic's Messages.

An image is a block of a message, or of the result of a tool. As in a chat (`chat.py`), a name takes
the place of where it is.
"""

from __future__ import annotations

from typing import Any

from serving.engine.bodies.blocks import PATHS
from serving.engine.images.chat import image_name, take_images
from serving.errors import InvalidField


def take_images_of(path: str, body: bytes) -> tuple[list[str], bytes]:
    """The URLs of the images in a body for `path`, and the body with names in their place; raises
    as `chat.take_images`, whatever the form of its messages."""
    return take_images(path, body, take_block if path in PATHS else None)


def take_block(block: Any, urls: list[str]) -> Any:
    """The block with names for its images, whose URLs are added to `urls`.

    Raises:
        InvalidField: an image without a source, or with one of an unknown type.
    """
    if not isinstance(block, dict):
        return block
    kind, content = block.get("type"), block.get("content")
    if kind == "tool_result" and isinstance(content, list):
        return {**block, "content": [take_block(one, urls) for one in content]}
    if kind != "image":
        return block
    urls.append(_url(block.get("source")))
    return {"type": "image", "source": {"type": "url", "url": image_name(len(urls) - 1)}}


def _url(source: Any) -> str:
    kind = source.get("type") if isinstance(source, dict) else None
    found: Any = None
    if kind == "url":
        found = source.get("url")
    elif kind == "base64" and isinstance(source.get("data"), str) and source["data"]:
        # The bytes decide the format, and the media type is only the caller's word.
        found = f"data:image/*;base64,{source['data']}"
    if not isinstance(found, str) or not found:
        raise InvalidField(
            "an image block needs 'source': {'type': 'base64', 'media_type': ..., 'data': ...} or "
            "{'type': 'url', 'url': ...}",
            param="messages",
        )
    return found
