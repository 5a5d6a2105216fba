"""Prompts from a file, with the right answers where it has them."""

from __future__ import annotations

import json
from typing import NamedTuple

from loadtests.load.draw import read_lines
from loadtests.scenarios.errors import ScenarioError


class Line(NamedTuple):
    """A prompt of a file and, if it has one, the text that must be answered."""

    prompt: str
    reference: str | None = None


def lines_of(path: str) -> list[Line]:
    """Return a file's prompts: a text in each line or, if its name ends in .jsonl, an object with
    `prompt` and perhaps `reference`. Empty lines do not count.

    Raises ScenarioError, which names the line.
    """
    found = []
    for at, text in enumerate(read_lines(path), start=1):
        if not text.strip():
            continue
        found.append(_object(path, at, text) if path.endswith(".jsonl") else Line(text))
    if not found:
        raise ScenarioError(f"{path}:1: the file is empty; write a text in each line")
    return found


def _object(path: str, at: int, text: str) -> Line:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise ScenarioError(f"{path}:{at}: no JSON: {error}") from None
    prompt = line.get("prompt") if isinstance(line, dict) else None
    reference = line.get("reference") if isinstance(line, dict) else None
    if not isinstance(prompt, str) or not isinstance(reference, str | None):
        raise ScenarioError(
            f'{path}:{at}: must be an object with texts, as {{"prompt": "...", "reference": "..."}}'
        )
    return Line(prompt, reference)
