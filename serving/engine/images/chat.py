"""Takes the images out of an OpenAI body's chat, and refuses other media.

vLLM would itself fetch whatever a part points to, files included. So this module replaces the URLs
in the body by names (`image:0`), and `vllm/image_prompts.py` gives vLLM the loaded images by these
names and nothing else. A part that slipped through would find nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from PIL.Image import Image

from serving.engine.bodies.responses import PATH as RESPONSES
from serving.engine.bodies.responses import chat_field
from serving.engine.images.loader import ImageLoader
from serving.errors import InvalidField, InvalidRequest

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
        "input_file",
        "prompt_embeds",
        "video_embeds",
        "video_url",
    )
)
_NAME = "image:"


def may_hold_media(body: bytes) -> bool:
    """False if a body certainly has text only: a quick look that saves parsing it."""
    return any(mark in body for mark in _MARKS)


async def load_taken(
    urls: list[str], model: str, path: str, loader: ImageLoader | None
) -> list[Image | None]:
    """Load the images that `take_images` cut out of a body. Without a loader none are taken.

    Raises:
        InvalidField: the model takes no images, or an image cannot be used.
        InvalidRequest: an image that its host does not deliver.
    """
    if not urls:
        return []
    if loader is None:
        raise InvalidField(f"model '{model}' takes no images", param=chat_field(path))
    return [*await loader.load_all(urls, chat_field(path))]


def take_images(
    path: str, body: bytes, take: Callable[[Any, list[str]], Any] | None = None
) -> tuple[list[str], bytes]:
    """The URLs of a chat body's images, and the body with names in their place.

    A body that is not JSON is returned as it is: vLLM refuses it in its own words.

    Args:
        take: does it for one part of a message; default: for those of OpenAI's endpoints.

    Raises:
        InvalidField: an image part without a URL or with a `uuid`, audio, video, or embeddings.
        InvalidRequest: the body is nested too deeply.
    """
    try:
        chat = json.loads(body)
    except ValueError:
        return [], body
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None
    urls: list[str] = []
    field = chat_field(path)
    messages = chat.get(field) if isinstance(chat, dict) else None
    own = _without_input_image if path == RESPONSES else _without_image
    take = take or partial(own, field=field)
    # The second is what a tool has answered.
    places = ("content", "output") if path == RESPONSES else ("content",)
    for message in messages if isinstance(messages, list) else ():
        for key in places if isinstance(message, dict) else ():
            parts = message.get(key)
            if isinstance(parts, list):
                message[key] = [take(part, urls) for part in parts]
    # Encoded again even without an image, so that vLLM parses exactly what was checked here.
    return urls, json.dumps(chat).encode()


def image_name(number: int) -> str:
    """What stands for an image in a body that went through `take_images`."""
    return f"{_NAME}{number}"


def _without_image(part: Any, urls: list[str], field: str) -> Any:
    if not _is_image(part, field):
        return part
    given = part.get("image_url")
    given = given if isinstance(given, dict) else {"url": given}
    url = given.get("url")
    if not isinstance(url, str) or not url:
        raise InvalidField("an image part needs 'image_url': {'url': ...}", param=field)
    urls.append(url)
    named: dict[str, Any] = {"url": image_name(len(urls) - 1)}
    if (detail := given.get("detail", part.get("detail"))) is not None:
        named["detail"] = detail
    return {"type": "image_url", "image_url": named}


def _without_input_image(part: Any, urls: list[str], field: str) -> Any:
    """The same for a part of Responses, in which the URL is the value itself."""
    if not _is_image(part, field):
        return part
    url = part.get("image_url")
    if part.get("file_id") is not None:
        raise InvalidField("files are not stored here; send an image as 'image_url'", param=field)
    if not isinstance(url, str) or not url:
        raise InvalidField("an image part needs 'image_url', which is a string", param=field)
    urls.append(url)
    named = {"type": "input_image", "image_url": image_name(len(urls) - 1)}
    return named | {"detail": part["detail"]} if part.get("detail") is not None else named


def _is_image(part: Any, field: str) -> bool:
    """
    Raises:
        InvalidField: the part is of another medium, or has an identity of its own.
    """
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    # Of what makes no sense as the name of a medium, the app says so.
    if (isinstance(kind, str) and kind in _OTHER_MEDIA) or _OTHER_MEDIA & part.keys():
        raise InvalidField("only text and images are taken", param=field)
    if kind not in _IMAGE_TYPES and "image_url" not in part:
        return False
    if part.get("uuid") is not None:
        # vLLM would use it as the image's identity in a cache that all callers share.
        raise InvalidField("an image part takes no 'uuid'", param=field)
    return True
