"""The heavy requests are what they say, as far as that can be seen without sending them."""

from __future__ import annotations

import json

import pytest

from loadtests.inside.heavy_bodies import BODIES, SHORT

ANSWERS = [name for name in BODIES if name.startswith("answer:")]


def test_the_short_list_is_part_of_the_long_one() -> None:
    assert set(SHORT) <= BODIES.keys()
    assert any(name in SHORT for name in ANSWERS)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_body_that_asks_for_a_large_answer_is_small(name: str) -> None:
    path, body = BODIES[name]("a-model")
    assert path.startswith("/v1/")
    fields = json.loads(body)
    assert fields["model"] == "a-model"
    assert bool(fields.get("stream")) == name.endswith("streamed")
    assert len(body) < 200_000
