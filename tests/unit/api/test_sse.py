from __future__ import annotations

import json

from serving.api.envelope import error_body, openai_error_body
from serving.api.sse import KEEPALIVE, error_event, openai_error_event, responses_error_event
from serving.errors import EngineFailed

ENVELOPE = error_body(EngineFailed("died\nagain"), "r1")


def test_a_keepalive_is_one_comment() -> None:
    assert KEEPALIVE.startswith(b":")
    assert KEEPALIVE.endswith(b"\n\n")
    assert KEEPALIVE.count(b"\n") == 2


def test_an_error_event_is_named_and_closed() -> None:
    name, data, blank, end = error_event(ENVELOPE).decode().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["message"] == "died\nagain"
    assert (blank, end) == ("", "")


def test_openais_error_event_has_no_name() -> None:
    data, blank, end = openai_error_event(ENVELOPE).decode().split("\n")
    assert json.loads(data.removeprefix("data: "))["error"]["code"] == "engine_failed"
    assert (blank, end) == ("", "")


def test_the_error_event_of_a_response_has_both_of_openais_forms() -> None:
    envelope = openai_error_body(EngineFailed("died\nagain"), "r1")
    name, data, blank, end = responses_error_event(envelope).decode().split("\n")
    assert (name, blank, end) == ("event: error", "", "")
    event = json.loads(data.removeprefix("data: "))
    # As in OpenAI's reference, and as its server sends it.
    for form in (event, event["error"]):
        assert form["code"] == "engine_failed"
        assert form["message"] == "died\nagain"
        assert form["param"] is None
    assert event["type"] == "error"
    assert event["error"]["request_id"] == "r1"
    assert event["sequence_number"] > 10**9
