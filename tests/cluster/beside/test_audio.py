"""Transcriptions and translations beside bare vLLM."""

from __future__ import annotations

import pytest

from tests.cluster.beside.alike import UNKNOWN, Otherwise, assert_refused, difference
from tests.cluster.beside.conftest import WHISPER
from tests.cluster.beside.sides import Served, Sides, asked
from tests.whisper_shape import recording

BESIDE = (WHISPER,)
MODELS = [Served(WHISPER, WHISPER, WHISPER), Served("whisper-1", WHISPER, WHISPER)]
PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
FILES = {
    "short": recording(1, 0.2),
    "whole": recording(2),
    "long": recording(3, 7),
    "nothing": b"",
    "noise": b"no sound",
    "head": recording(1, 0.2)[:30],
}
GREEDY = {"language": "en", "temperature": "0"}
FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "short": ("short", GREEDY),
    "whole": ("whole", GREEDY),
    "parts": ("long", GREEDY),
    "any language": ("whole", {"temperature": "0"}),
    "a prompt": ("whole", {**GREEDY, "prompt": "a word"}),
    "cut": ("whole", {**GREEDY, "max_completion_tokens": "3"}),
    "a limit above the context": ("whole", {**GREEDY, "max_completion_tokens": "1000000"}),
    "json": ("whole", {**GREEDY, "response_format": "json"}),
    "segments": ("long", {**GREEDY, "response_format": "verbose_json"}),
    "seed": ("whole", {"language": "en", "temperature": "0.8", "seed": "42"}),
}
BAD: dict[str, tuple[str, dict[str, str]]] = {
    "no file": ("", GREEDY),
    "an empty file": ("nothing", GREEDY),
    "no sound": ("noise", GREEDY),
    "a head": ("head", GREEDY),
    "an unknown language": ("short", {**GREEDY, "language": "hh"}),
    "a temperature that is a text": ("short", {**GREEDY, "temperature": "hot"}),
    "a temperature below none": ("short", {**GREEDY, "temperature": "-1"}),
    "an unknown format": ("short", {**GREEDY, "response_format": "bad"}),
    "subtitles": ("short", {**GREEDY, "response_format": "srt"}),
    "segments, streamed": (
        "short",
        {**GREEDY, "response_format": "verbose_json", "stream": "true"},
    ),
    "a limit that is a text": ("short", {**GREEDY, "max_completion_tokens": "many"}),
    "a long prompt": ("short", {**GREEDY, "prompt": "word " * 30}),
    "an unknown model": ("short", {**GREEDY, "model": "nothing"}),
}
FORM = Otherwise(400, 400, "the form is held against `AudioRequest` first")
# How a refusal differs from vLLM's, and why.
OTHERWISE = {
    "no file": FORM,
    "an empty file": FORM,
    "a temperature that is a text": FORM,
    "a temperature below none": FORM,
    "an unknown format": FORM,
    "subtitles": FORM,
    "a limit that is a text": FORM,
    "an unknown model": UNKNOWN,
}


@pytest.mark.parametrize(("served", "name"), asked(MODELS, FORMS))
@pytest.mark.parametrize("path", PATHS)
def test_answers(sides: Sides, path: str, served: Served, name: str) -> None:
    file, form = FORMS[name]
    ours, theirs = sides.ask_form(path, served, form, FILES[file])
    assert theirs.status == 200, theirs.said
    differs = difference(ours, theirs, served.ours, served.theirs)
    assert not differs, differs


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("path", PATHS)
def test_refusals(sides: Sides, path: str, name: str) -> None:
    file, form = BAD[name]
    answers = sides.ask_form(path, MODELS[0], form, FILES.get(file))
    assert_refused(*answers, OTHERWISE.get(name))
