"""Every endpoint at which the running service answers, asked for a base model, an alias and an
adapter by the examples of the API's description."""

from __future__ import annotations

import pytest

from serving.api.openapi.document import text_of
from tests.asking import ASKED, Asking
from tests.live import ALIAS, BASE, PIRATE, Server

ANSWERS = {BASE: BASE, ALIAS: BASE, PIRATE: PIRATE}
# The others are asked where their models are: test_scores.py, tests/e2e/test_openai_tasks.py.
HERE = [asking for asking in ASKED if text_of(asking.endpoint).profile]


@pytest.mark.parametrize("asking", HERE, ids=lambda at: at.endpoint.path)
def test_a_model_answers_under_the_id_that_was_asked_for(live: Server, asking: Asking) -> None:
    for model, target in ANSWERS.items():
        for body in asking.bodies:
            asking.check_running(live.client, live.url, body, model, target)
