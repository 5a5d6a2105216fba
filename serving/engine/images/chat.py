"""The media parts of an OpenAI chat body: which there are, and whether they may be there.

vLLM would fetch what a part points to by itself, files included. So the URLs are cut out of the
body here; vLLM sees names instead (`image:0`), and is given the images behind them by
`vllm_images.py`, which knows nothing else. A part that slipped through would find nothing.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from PIL.Image import Image

from serving.engine.images.loader import ImageLoader
from serving.errors import InvalidField, InvalidRequest

# Longer bodies are parsed in a thread: an image is megabytes of base64.
INLINE_BYTES = 64 * 1024

# One of these is in every body with a media part, whatever the part's form.
_MARKS = (b'"image', b'"input_', b'"audio', b'"video')
_IMAGE_TYPES = ("image_url", "input_image")
_OTHER_MEDIA = frozenset(
    (
        "audio_embeds",
        "audio_url",
        "image_embeds",
        "image_pil",
        "input_audio",
        "prompt_embeds",
        "video_embeds",
        "video_url",
    )
)
_NAME = "image:"


def may_hold_media(body: bytes) -> bool:
    """A quick look at a body, to leave all those alone that certainly are text."""
    return any(mark in body for mark in _MARKS)


async def load_images(
    body: bytes, model: str, loader: ImageLoader | None
) -> tuple[bytes, list[Image | None]]:
    """The body for vLLM and the images its names stand for. Without a loader none are taken.

    Raises:
        InvalidField: media the model does not take, or an image that cannot be used.
        InvalidRequest: an image that its host does not deliver, or as `take_images`.
    """
    if not may_hold_media(body):
        return body, []
    if len(body) <= INLINE_BYTES:
        urls, body = take_images(body)
    else:
        urls, body = await asyncio.to_thread(take_images, body)
    if not urls:
        return body, []
    if loader is None:
        raise InvalidField(f"model '{model}' takes no images", param="messages")
    return body, [*await loader.load_all(urls, "messages")]


def take_images(body: bytes) -> tuple[list[str], bytes]:
    """The URLs of a chat body's images, and the body with names in their place.

    A body that is no chat is returned as it is: vLLM has the words for that.

    Raises:
        InvalidField: an image part without a URL, audio, video, or embeddings.
        InvalidRequest: a body that no parser takes.
    """
    try:
        chat = json.loads(body)
    except ValueError:
        return [], body
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    urls: list[str] = []
    messages = chat.get("messages") if isinstance(chat, dict) else None
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            message["content"] = [_without_image(part, urls) for part in content]
    # Even without an image: what vLLM parses is then exactly what was looked at.
    return urls, json.dumps(chat).encode()


def image_name(number: int) -> str:
    """What stands for an image in a body that went through `take_images`."""
    return f"{_NAME}{number}"


def _without_image(part: Any, urls: list[str]) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind in _OTHER_MEDIA or _OTHER_MEDIA & part.keys():
        raise InvalidField("only text and images are taken", param="messages")
    if kind not in _IMAGE_TYPES and "image_url" not in part:
        return part
    if part.get("uuid") is not None:
        # vLLM would take it for the image's identity in a cache that all callers share.
        raise InvalidField("an image part takes no 'uuid'", param="messages")
    given = part.get("image_url")
    given = given if isinstance(given, dict) else {"url": given}
    url = given.get("url")
    if not isinstance(url, str) or not url:
        raise InvalidField("an image part needs 'image_url': {'url': ...}", param="messages")
    urls.append(url)
    named: dict[str, Any] = {"url": image_name(len(urls) - 1)}
    if (detail := given.get("detail", part.get("detail"))) is not None:
        named["detail"] = detail
    return {"type": "image_url", "image_url": named}
