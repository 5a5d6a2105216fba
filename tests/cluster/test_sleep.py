"""A model with `min_replicas: 0` on the whole stack: asleep, woken by its first request, asleep
again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.conftest import apply, local_model, models_with
from tests.live import INSTRUCT, Server, parse_events, poll

SLEEPER = "sleeper"


@pytest.fixture(scope="module")
def asleep(_shared: object) -> Iterator[Server]:
    """The running service with one more model, which sleeps."""
    live: Server = _shared.get()  # type: ignore[attr-defined]
    entry = {**local_model(INSTRUCT), "id": SLEEPER, "min_replicas": 0, "idle_s": 2}
    apply(live, models_with(live, [entry]))
    yield live
    apply(live, live.models)


def replicas(live: Server) -> int:
    return int(live.get(f"{live.url}/ready")["models"][SLEEPER]["replicas"])


def test_it_wakes_for_everyone_who_asks_and_goes_back_to_sleep(asleep: Server) -> None:
    live = asleep
    assert replicas(live) == 0
    assert live.get(f"{live.url}/ready")["ready"]
    answers: list[int] = []

    def ask() -> None:
        answers.append(live.complete(SLEEPER, "Hello!").status_code)

    others = [threading.Thread(target=ask) for _ in range(4)]
    for thread in others:
        thread.start()
    started = time.monotonic()
    body = {"model": SLEEPER, "prompt": "Hello!", "stream": True}
    with live.client.stream("POST", f"{live.url}/v4/completions", json=body) as response:
        text = "".join(response.iter_text())
    took = time.monotonic() - started
    for thread in others:
        thread.join()
    assert answers == [200] * 4
    assert parse_events(text)[-1].json["completion"]["finish_reason"] == "stop"
    if took > 11:  # the default keepalive is every ten seconds
        assert text.startswith(f": model '{SLEEPER}' is starting; ")
    assert replicas(live) == 1
    poll(lambda: not replicas(live), 120, "it sleeps again")
    poll(lambda: not live.engines(SLEEPER), 30, "its processes are gone")
    assert yaml.safe_load(live.models.read_text())  # the service itself was not touched
    assert live.text(INSTRUCT, "Hello!")
