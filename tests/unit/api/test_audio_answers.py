from __future__ import annotations

import json

import pytest

from serving.api.audio import TRANSCRIPTIONS, TRANSLATIONS, AudioForm
from serving.api.audio_answers import EVENTS_FORM, TEXT_FORM, TextAnswer, TranscriptEvents
from serving.api.said import decode_said
from serving.http.request import Request
from serving.wire.messages import HttpCall

CHUNK = {"id": "t1", "object": "transcription.chunk", "created": 5, "model": "m"}


def chunk(text: str, **more: object) -> dict[str, object]:
    return {**CHUNK, "choices": [{"delta": {"content": text}, **more}]}


def test_an_event_has_the_fields_of_both() -> None:
    events = TranscriptEvents()
    for said in (chunk("Hel"), chunk("lo"), chunk("", finish_reason="stop")):
        written = json.loads(events.event(json.dumps(said).encode()))
        delta = said["choices"][0]["delta"]["content"]  # type: ignore[index]
        assert written == {"type": "transcript.text.delta", "delta": delta, **said}
    done = {"type": "transcript.text.done", "text": "Hello"}
    assert json.loads(events.end()) == {**done, **CHUNK, "choices": []}


def test_a_text_is_a_line() -> None:
    call = HttpCall("r1", "m", "POST", TRANSCRIPTIONS)
    said = b'{"text": "Hello \\u00fc.", "usage": {"type": "duration", "seconds": 2}}'
    answer = TextAnswer(call, b"")
    assert answer.whole(decode_said(said)) == "Hello ü.\n".encode()
    assert answer.head.headers == (("content-type", "text/plain; charset=utf-8"),)


@pytest.mark.parametrize(
    ("path", "fields", "streams", "form"),
    [
        (TRANSCRIPTIONS, {}, False, ""),
        (TRANSCRIPTIONS, {"response_format": "json", "stream": "false"}, False, ""),
        (TRANSCRIPTIONS, {"response_format": "verbose_json"}, False, ""),
        (TRANSCRIPTIONS, {"response_format": "text"}, False, TEXT_FORM),
        (TRANSLATIONS, {"response_format": "text"}, False, TEXT_FORM),
        (TRANSCRIPTIONS, {"stream": "true"}, True, EVENTS_FORM),
        (TRANSCRIPTIONS, {"stream": "1", "response_format": "text"}, True, EVENTS_FORM),
        # OpenAI has no events for translations; they are as vLLM writes them.
        (TRANSLATIONS, {"stream": "true"}, True, ""),
    ],
)
def test_what_a_form_asks_for(path: str, fields: dict[str, str], streams: bool, form: str) -> None:
    headers = {b"content-type": b"multipart/form-data; boundary=b"}
    sent = Request({}, None, None, "r1", path, headers)  # type: ignore[arg-type]
    parts = [
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in {"model": "m", **fields}.items()
    ]
    body = ("".join(parts) + "--b--").encode()
    incoming = AudioForm(sent)
    incoming.feed(body)
    asked = incoming.asked(body)
    assert (asked.model, asked.streams, asked.form) == ("m", streams, form)
