"""Every endpoint at which the running service answers, asked for a base model, an alias and an
adapter by the examples of the API's description."""

from __future__ import annotations

import pytest

from serving.api.openapi.document import JSON, text_of
from tests.asking import ASKED, Asking, named
from tests.live import ALIAS, BASE, PIRATE, Server, parse_events

ANSWERS = {BASE: BASE, ALIAS: BASE, PIRATE: PIRATE}
# The others are asked where their models are: test_embeddings.py, test_scores.py, test_audio.py.
HERE = [asking for asking in ASKED if text_of(asking.endpoint).profile]


@pytest.mark.parametrize("asking", HERE, ids=lambda at: at.endpoint.path)
def test_a_model_answers_under_the_id_that_was_asked_for(live: Server, asking: Asking) -> None:
    for model, target in ANSWERS.items():
        for body in asking.bodies:
            path, sent = asking.path(model), asking.sent(model, body)
            response = live.client.post(live.url + path, **sent)
            assert response.status_code == 200, response.text
            streams = response.headers["content-type"] != JSON
            assert streams == (body.get("stream", False) or body == asking.streamed)
            said = (
                [response.json()]
                if not streams
                else [event.json for event in parse_events(response.text) if event.data != "[DONE]"]
            )
            own = asking.calls_it(model, target, streams=streams)
            assert set(named(said)) == {own} - {None}
            assert response.headers.get("x-served-model", model) == target
