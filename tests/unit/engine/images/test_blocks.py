"""Images in the content blocks of Anthropic's Messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.catalogue.spec import ImageLimits
from serving.engine.images.blocks import take_images_of
from serving.engine.images.chat import image_name, may_hold_media
from serving.engine.images.loader import ImageLoader
from serving.errors import InvalidField
from tests.unit.engine.images.pictures import BLUE, RED, data_url, encoded

PATH = "/v1/messages"
URL = "https://host/a.png"
TEXT = {"type": "text", "text": "what is it?"}


def image(**source: Any) -> dict[str, Any]:
    return {"type": "image", "source": source, "cache_control": {"type": "ephemeral"}}


def named(number: int) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "url", "url": image_name(number)}}


def body(*blocks: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": [*blocks]}]}).encode()


def content(changed: bytes) -> Any:
    return json.loads(changed)["messages"][0]["content"]


@pytest.mark.parametrize("path", [PATH, f"{PATH}/count_tokens"])
async def test_images_of_messages_and_of_results_of_tools_are_taken(path: str) -> None:
    red, blue = (data_url(encoded(color)).partition(",")[2] for color in (RED, BLUE))
    result = {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [TEXT, image(type="base64", media_type="image/jpeg", data=blue)],
    }
    given = body(
        image(type="base64", media_type="image/png", data=red),
        result,
        TEXT,
        image(type="url", url=URL),
    )
    assert may_hold_media(given)
    urls, changed = take_images_of(path, given)
    assert content(changed) == [named(0), {**result, "content": [TEXT, named(1)]}, TEXT, named(2)]
    assert urls[2] == URL
    images = await ImageLoader(ImageLimits()).load_all(urls[:2], "messages")
    assert [found.getpixel((0, 0)) for found in images] == [RED, BLUE]


@pytest.mark.parametrize(
    "source",
    [
        None,
        5,
        {},
        {"type": "base64"},
        {"type": "base64", "data": ""},
        {"type": "base64", "data": 5},
        {"type": "url", "url": ["a"]},
        {"type": "file", "file_id": "a"},
        {"type": ["url"], "url": "a"},
        {"url": URL},
    ],
)
def test_an_image_without_a_source_is_refused(source: Any) -> None:
    for block in (
        {"type": "image", "source": source},
        {"type": "tool_result", "content": [{"type": "image", "source": source}]},
    ):
        with pytest.raises(InvalidField, match="an image block needs"):
            take_images_of(PATH, body(block))


@pytest.mark.parametrize(
    "blocks",
    [
        [TEXT],
        ["a", 5, None],
        [{"type": "tool_result", "content": "image"}],
        [{"type": ["image"]}],
        [{"type": "thinking", "thinking": '"image'}],
    ],
)
def test_what_is_no_image_stays(blocks: list[Any]) -> None:
    urls, changed = take_images_of(PATH, body(*blocks))
    assert urls == []
    assert content(changed) == blocks


def test_a_name_of_a_callers_own_is_a_url_that_nothing_is_loaded_from() -> None:
    urls, changed = take_images_of(PATH, body(image(type="url", url=image_name(7))))
    assert urls == [image_name(7)]
    assert content(changed) == [named(0)]


def test_chats_are_as_they_were() -> None:
    part = {"type": "image_url", "image_url": {"url": URL}}
    urls, _ = take_images_of("/v1/chat/completions", body(part))
    assert urls == [URL]
