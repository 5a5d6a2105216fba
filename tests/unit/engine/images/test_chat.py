from __future__ import annotations

import json
from typing import Any

import pytest

from serving.catalogue.spec import ImageLimits
from serving.engine.images.chat import (
    image_name,
    load_taken,
    may_hold_media,
    take_images,
)
from serving.engine.images.loader import ImageLoader
from serving.errors import InvalidField, InvalidRequest
from tests.unit.engine.images.pictures import BLUE, RED, data_url, encoded

URL = "https://host/a.png"


def chat(*parts: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": [*parts]}]}).encode()


def content(body: bytes) -> Any:
    return json.loads(body)["messages"][0]["content"]


CHAT = "/v1/chat/completions"
TEXT = {"type": "text", "text": "what is it?"}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "image_url", "image_url": URL},
        {"type": "input_image", "image_url": URL},
        {"image_url": URL},
        {"image_url": {"url": URL}},
        {"type": "text", "text": "x", "image_url": URL},
        {"type": "image_url", "image_url": {"url": URL}, "uuid": None},
    ],
)
def test_every_form_of_an_image_part_is_taken(part: dict[str, Any]) -> None:
    body = chat(TEXT, part)
    assert may_hold_media(body)
    urls, changed = take_images(CHAT, body)
    assert urls == [URL]
    assert content(changed) == [
        TEXT,
        {"type": "image_url", "image_url": {"url": image_name(0)}},
    ]


def test_detail_is_passed_on() -> None:
    _, changed = take_images(
        CHAT,
        chat(
            {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
            {"type": "input_image", "image_url": URL, "detail": "high"},
        ),
    )
    assert [part["image_url"]["detail"] for part in content(changed)] == ["low", "high"]


def test_images_are_numbered_over_all_messages() -> None:
    part = {"type": "image_url", "image_url": {"url": URL}}
    messages = [
        {"role": "user", "content": [part, TEXT]},
        {"role": "assistant", "content": "a flower"},
        {"role": "tool", "content": [part]},
    ]
    urls, changed = take_images(CHAT, json.dumps({"messages": messages, "n": 2}).encode())
    assert urls == [URL, URL]
    seen = json.loads(changed)
    assert seen["n"] == 2
    assert seen["messages"][0]["content"][1] == TEXT
    assert seen["messages"][2]["content"][0]["image_url"] == {"url": image_name(1)}


def test_a_callers_own_names_are_urls_like_others() -> None:
    """They go to the loader, which refuses them; no part gets at another part's image."""
    urls, _ = take_images(CHAT, chat({"type": "image_url", "image_url": {"url": image_name(7)}}))
    assert urls == [image_name(7)]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": URL}},
        {"type": "video_url", "video_url": {"url": URL}},
        {"video_url": URL},
        {"type": "text", "text": "x", "video_url": URL},
        {"type": "image_pil", "image_pil": "x"},
        {"type": "image_embeds", "image_embeds": "AAAA"},
        {"type": "image_url", "image_url": URL, "video_url": URL},
        {"type": "image_url"},
        {"type": "image_url", "image_url": None},
        {"type": "image_url", "image_url": {}},
        {"type": "image_url", "image_url": {"url": 3}},
        {"type": "image_url", "image_url": {"url": ""}},
        {"type": "image_url", "image_url": {"url": URL}, "uuid": "u"},
        {"type": "image_url", "uuid": "u"},
    ],
)
def test_other_media_and_images_without_a_url_are_refused(part: dict[str, Any]) -> None:
    body = chat(TEXT, part)
    assert may_hold_media(body)
    with pytest.raises(InvalidField) as caught:
        take_images(CHAT, body)
    assert caught.value.param == "messages"


def test_the_last_of_two_equal_keys_counts_for_everybody() -> None:
    body = b'{"messages":[{"content":[{"type":"image_url","image_url":"a","image_url":"b"}]}]}'
    urls, changed = take_images(CHAT, body)
    assert urls == ["b"]
    assert b'"a"' not in changed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'"image"',
        b'["image_url"]',
        b'{"messages": "image"}',
        b'{"messages": ["image", 3, null]}',
        b'{"messages": [{"content": "an \\"image_url\\""}, {"content": null}, {"content": {}}]}',
        b'{"messages": [{"content": ["a", 1, null, [], {"type": "text"}, {"type": 3}]}]}',
        b'{"prompt": "the word \\"image_url\\""}',
        b"\xff\xfe",
    ],
)
def test_what_has_no_images_stays_the_same(body: bytes) -> None:
    urls, same = take_images(CHAT, body)
    assert urls == []
    try:
        assert json.loads(same) == json.loads(body)
    except ValueError:
        assert same == body


def test_a_body_nested_deeply_is_refused() -> None:
    body = b'{"image": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        take_images(CHAT, body)


@pytest.mark.parametrize("prompt", ["draw an image", "the image_url", "a video of audio"])
def test_most_texts_are_not_looked_into(prompt: str) -> None:
    assert not may_hold_media(json.dumps({"messages": [{"content": prompt}]}).encode())


async def test_a_text_model_takes_no_images() -> None:
    with pytest.raises(InvalidField, match="model 'm' takes no images") as caught:
        await load_taken([data_url(encoded())], "m", CHAT, None)
    assert (caught.value.status, caught.value.param) == (422, "messages")


async def test_images_are_loaded_in_order() -> None:
    urls = [data_url(encoded(color)) for color in (RED, BLUE)]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    taken, body = take_images(CHAT, chat(*parts, TEXT))
    images = await load_taken(taken, "m", CHAT, ImageLoader(ImageLimits()))
    assert [image and image.getpixel((0, 0)) for image in images] == [RED, BLUE]
    assert b"base64" not in body


async def test_text_has_no_images() -> None:
    for body in (b"{ }", chat(TEXT), chat({"type": "text", "text": 'say "image" '})):
        urls, same = take_images(CHAT, body)
        assert json.loads(same) == json.loads(body)
        for loader in (None, ImageLoader(ImageLimits())):
            assert await load_taken(urls, "m", CHAT, loader) == []


async def test_what_cannot_be_loaded_is_the_messages_fault() -> None:
    with pytest.raises(InvalidField, match=r"images\.allowed_hosts") as caught:
        await load_taken([URL], "m", CHAT, ImageLoader(ImageLimits()))
    assert caught.value.param == "messages"


# Responses

RESPONSES = "/v1/responses"


def response(*parts: Any, key: str = "content") -> bytes:
    return json.dumps({"input": [{"role": "user", key: [*parts]}, "odd"]}).encode()


@pytest.mark.parametrize("key", ["content", "output"])
def test_the_images_of_a_response_are_taken(key: str) -> None:
    image = {"type": "input_image", "image_url": URL, "detail": "low"}
    text = {"type": "input_text", "text": "what is it?"}
    body = response(text, image, {"type": "input_image", "image_url": URL + "2"}, key=key)
    assert may_hold_media(body)
    urls, changed = take_images(RESPONSES, body)
    assert urls == [URL, URL + "2"]
    assert json.loads(changed)["input"][0][key] == [
        text,
        {"type": "input_image", "image_url": image_name(0), "detail": "low"},
        {"type": "input_image", "image_url": image_name(1)},
    ]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "input_file", "file_id": "f"}, "only text and images"),
        ({"type": "input_audio", "input_audio": {}}, "only text and images"),
        ({"type": "input_image", "file_id": "f"}, "files are not stored"),
        ({"type": "input_image"}, "needs 'image_url'"),
        ({"type": "input_image", "image_url": {"url": URL}}, "needs 'image_url'"),
        ({"type": "input_image", "image_url": URL, "uuid": "u"}, "uuid"),
    ],
)
def test_other_parts_of_a_response_are_refused(part: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidField, match=said) as caught:
        take_images(RESPONSES, response(part))
    assert caught.value.param == "input"


async def test_a_response_s_images_are_refused_by_the_field_they_are_in() -> None:
    with pytest.raises(InvalidField) as caught:
        await load_taken([URL], "m", RESPONSES, None)
    assert caught.value.param == "input"


def test_a_part_whose_type_is_no_word_is_left_to_vllm() -> None:
    part: dict[str, Any] = {"type": ["input_image"]}
    assert content(take_images(CHAT, chat(part))[1]) == [part]
