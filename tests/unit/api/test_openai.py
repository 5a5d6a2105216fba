from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from serving.api.openai import parse_openai, peek
from serving.errors import InvalidField, InvalidRequest


def test_the_model_and_the_stream_flag_are_read() -> None:
    found = peek(b'{"messages": [{"role": "user"}], "model": "m", "stream": true, "n": 2}')
    assert (found.model, found.stream) == ("m", True)
    assert not peek(b'{"model": "m"}').stream
    assert not peek(b'{"model": "m", "stream": null}').stream


@pytest.mark.parametrize(
    ("tier", "batch"), [("flex", True), ("auto", False), (None, False), ({"a": 1}, False)]
)
def test_the_low_tier_is_a_batch_request(tier: object, batch: bool) -> None:
    """Whatever else is in the field, the engine judges."""
    sent = SimpleNamespace(name="", path="/v1/completions", query=b"", headers={})
    asked = parse_openai(sent, json.dumps({"model": "m", "service_tier": tier}).encode())
    target = SimpleNamespace(model="m", adapter=None, prompt_format=None, hosted=False)
    call, _ = asked.call("r", target)
    assert call.standing.batch is batch


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b"{}", "model"),
        (b'{"model": 5}', "model"),
        (b'{"model": null}', "model"),
        (b'{"model": ""}', "model"),
        (b'{"model": "' + b"m" * 257 + b'"}', "model"),
        (b'{"model": "m", "stream": 1}', "stream"),
        (b'{"model": "m", "stream": "true"}', "stream"),
    ],
)
def test_a_bad_field_is_named(data: bytes, param: str) -> None:
    with pytest.raises(InvalidField) as caught:
        peek(data)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"5",
        b'{"model": "m"',
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        b'{"model": "m"} x',
        pytest.param(b'{"x": ' + b"[" * 100_000, id="deep"),
    ],
)
def test_what_is_no_json_object_is_malformed(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        peek(data)


def test_a_prompt_of_megabytes_is_refused_before_an_engine_gets_it() -> None:
    assert peek(b'{"model": "m", "prompt": "%s"}' % (b"a" * 8_388_606)).model == "m"
    with pytest.raises(InvalidRequest, match=r"'prompt': has 8388609 bytes") as at:
        peek(b'{"model": "m", "prompt": "%s"}' % (b"a" * 8_388_607))
    assert at.value.param == "prompt"
