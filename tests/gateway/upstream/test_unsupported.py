"""What a provider cannot do is refused and not sent."""

from __future__ import annotations

from typing import Any

from tests.gateway.upstream.conftest import Start, World

CANNOT: list[tuple[str, dict[str, Any], str]] = [
    ("openai", {"top_k": 5}, "model_parameters.top_k"),
    ("gemini", {"top_k": 5}, "model_parameters.top_k"),
    ("gemini", {"frequency_penalty": 0.5}, "model_parameters.frequency_penalty"),
    ("anthropic", {"top_k": 5}, "model_parameters.top_k"),
    ("anthropic", {"presence_penalty": 0.5}, "model_parameters.presence_penalty"),
    ("anthropic", {"stop_sequences": ["x", " \n"]}, "model_parameters.stop_sequences"),
    ("openai", {"reasoning_effort": "low"}, "model_parameters.reasoning_effort"),
]


async def test_what_a_provider_cannot_do_is_a_422(world: World) -> None:
    for dialect, parameters, param in CANNOT:
        response = await world.complete(dialect, model_parameters=parameters)
        assert response.status_code == 422
        assert response.json()["error"]["param"] == param
    assert not any(double.requests for double in world.doubles.values())
    assert world.site.counted(outcome="rejected") == len(CANNOT)


async def test_an_image_detail_that_would_be_ignored(world: World) -> None:
    images = [{"image_url": "https://a/b.png", "detail": "low"}]
    response = await world.complete("anthropic", images=images)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "images.0.detail"


IGNORED: list[tuple[dict[str, Any], str]] = [
    ({"seed": 1}, "seed"),
    ({"logprobs": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"temperature": 1.5}, "temperature"),
    ({"stop": "\n"}, "stop"),
    ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "tools"),
]


async def test_what_anthropic_ignores_in_a_chat_is_a_422(world: World) -> None:
    for fields, param in IGNORED:
        response = await world.chat("anthropic", **fields)
        assert response.status_code == 422
        assert response.json()["error"]["param"] == param
    harmless = {"logprobs": False, "presence_penalty": 0, "response_format": {"type": "text"}}
    assert (await world.chat("anthropic", **harmless)).status_code == 200


NO_COUNTERPART: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ["a", "b"]}, "prompt"),
    ({"prompt": [1, 2, 3]}, "prompt"),
    ({"echo": True}, "echo"),
    ({"logprobs": 1}, "logprobs"),
    ({"suffix": "x"}, "suffix"),
    ({"best_of": 2}, "best_of"),
    ({"made_up": 1}, "made_up"),
]


async def test_what_chat_has_no_counterpart_of_is_a_422(world: World) -> None:
    for fields, param in NO_COUNTERPART:
        response = await world.legacy(**fields)
        assert response.status_code == 422
        assert response.json()["error"]["param"] == param
    assert not world.openai.requests


async def test_what_cannot_be_sent_does_not_look_like_a_failing_provider(start: Start) -> None:
    world = await start(breaker_failures=1)
    odd = (
        rb'"a\ud800b"', rb'"a\udc00"', b'"\xff"', b'"\xed\xa0\x80"', b"[" * 5000 + b"]" * 5000,
        b'{"a": 1e999}', b"NaN", b"123456789012345678901234567890",
    )  # fmt: skip
    for value in odd:
        for path, field in (
            ("/v4/completions", b"prompt"),
            ("/v1/chat/completions", b"messages"),
            ("/v1/completions", b"prompt"),
        ):
            body = b'{"model": "m-openai", "%b": %b}' % (field, value)
            response = await world.wire.post(path, content=body)
            assert response.status_code in (200, 400, 422), (path, value, response.text)
    assert (await world.complete()).status_code == 200
