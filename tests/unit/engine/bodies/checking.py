"""A check of bodies with small limits, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.engine.bodies.check import BodyCheck
from serving.engine.bodies.fields import LIST, OBJECT, SCALAR
from serving.engine.bodies.limits import BodyLimits
from serving.errors import InvalidRequest

PATH = "/v1/chat/completions"
FIELDS = {PATH: {"structured_outputs": frozenset((OBJECT,)), "stop": frozenset((SCALAR, LIST))}}


def check(
    body: Any,
    prompt_chars: int | None = 1000,
    sequences: int | None = 64,
    path: str = PATH,
    **limits: int,
) -> bool:
    given = body if isinstance(body, bytes) else json.dumps(body).encode()
    checks = BodyCheck(
        BodyLimits(**limits),
        FIELDS,
        context=100,
        prompt_chars=prompt_chars,
        sequences=sequences,
        reserved={"vllm_xargs": frozenset(("taken",))},
    )
    return checks.check(path, given).constrained


def refusal(body: Any, **more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check(body, **more)
    assert caught.value.status == 400
    return caught.value


MESSAGE = {"role": "user", "content": "a"}
TOOL = {"type": "function", "function": {"name": "a"}}
TAG = {"begin": "a", "end": "b", "schema": {}}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}
