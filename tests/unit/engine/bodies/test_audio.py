from __future__ import annotations

import httpx
import pytest

from serving.engine.bodies.audio import check_audio
from serving.engine.bodies.limits import BodyLimits
from serving.errors import InvalidRequest

LIMITS = BodyLimits(audio_bytes=10, string_chars=20)
SOUND = ("a.wav", b"0123456789")


def check(files: object = (("file", SOUND),), **fields: object) -> None:
    data = {"model": "m", **fields}
    sent = httpx.Request("POST", "http://x", data=data, files=list(files))  # type: ignore[arg-type, call-overload]
    check_audio(sent.headers["content-type"], sent.read(), LIMITS)


def test_what_is_taken() -> None:
    check()
    check(
        language="en",
        prompt="x" * 20,
        response_format="json",
        temperature="0.5",
        stream="false",
        max_completion_tokens="5",
        seed="-1",
    )
    check(response_format="text", stream="true")
    check(**{"response_format": "verbose_json", "timestamp_granularities[]": "segment"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("language", "e"),
        ("language", "<|en|>"),
        ("prompt", "x" * 21),
        ("response_format", "srt"),
        ("response_format", "vtt"),
        ("response_format", "diarized_json"),
        ("temperature", "inf"),
        ("temperature", "-1"),
        ("temperature", "hot"),
        ("stream", "maybe"),
        ("max_completion_tokens", "0"),
        ("max_completion_tokens", "1.5"),
        ("seed", "1" * 19),
        ("model", ["m", "m"]),
        ("include[]", "logprobs"),
        ("timestamp_granularities[]", "word"),
        ("use_beam_search", "true"),
        ("n", "2"),
        ("vllm_xargs", "{}"),
    ],
)
def test_a_field_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^'") as caught:
        check(**{field: value})
    assert caught.value.param == field
    assert caught.value.message.startswith(f"'{field}': ")


@pytest.mark.parametrize(
    "files",
    [
        [],
        [("file", ("a.wav", b""))],
        [("file", ("a.wav", b"01234567890"))],
        [("file", SOUND), ("file", SOUND)],
    ],
    ids=["none", "empty", "too large", "two"],
)
def test_there_is_one_file_of_some_size(files: list[object]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(files or [("prompt", SOUND)])
    assert caught.value.param == ("file" if files else "prompt")


def test_what_is_a_file_and_what_is_none() -> None:
    with pytest.raises(InvalidRequest, match="'file': must be a file"):
        check([("prompt", (None, b"x"))], file="x")
    with pytest.raises(InvalidRequest, match="'file'"):
        check([("prompt", (None, b"x"))])
    with pytest.raises(InvalidRequest, match="'prompt': is not UTF-8"):
        check([("file", SOUND), ("prompt", (None, b"\xff"))])
