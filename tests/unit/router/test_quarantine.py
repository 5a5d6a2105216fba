from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serving.errors import Quarantined
from serving.observability.logs import Log
from serving.observability.router_metrics import RouterMetrics
from serving.router import quarantine
from serving.router.answer import Answer
from serving.router.quarantine import Quarantine
from serving.wire.fingerprint import fingerprint
from serving.wire.messages import CompletionCall, HttpCall, Sampling


def call(prompt: str = "one") -> CompletionCall:
    return CompletionCall("r1", "m", prompt, False, Sampling(), "m")


def http() -> HttpCall:
    return HttpCall("r1", "m", "POST", "/v1/completions")


class Held:
    """A quarantine, its clock and its metrics."""

    def __init__(self, log: Log, keep_s: float = 600, limit: int = 1000) -> None:
        self.now = 0.0
        self.metrics = RouterMetrics()
        self.quarantine = Quarantine(
            self.metrics, log, keep_s=keep_s, limit=limit, clock=lambda: self.now
        )

    def suspect(self, prompt: str = "one", model: str = "m", replica: str = "1") -> None:
        self.quarantine.add(model, replica, [fingerprint(call(prompt), b"")])

    def refuses(self, prompt: str = "one", model: str = "m") -> bool:
        try:
            self.quarantine.check(model, call(prompt), b"")
        except Quarantined:
            return True
        return False

    def counted(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"model": "m"}) or 0


@pytest.fixture
def held(log: Log) -> Held:
    return Held(log)


def test_nothing_is_hashed_while_nobody_is_suspected(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(quarantine, "fingerprint", never)
    assert not held.refuses()
    monkeypatch.undo()
    held.suspect()
    monkeypatch.setattr(quarantine, "fingerprint", never)
    assert not held.refuses("of another size")
    assert not held.refuses(model="another")


def test_a_suspect_is_refused_and_no_other(held: Held) -> None:
    held.suspect()
    assert held.refuses()
    assert held.refuses()
    assert not held.refuses("two")
    assert not held.refuses(model="another")
    held.quarantine.add("m", "1", [fingerprint(http(), b"{1}")])
    with pytest.raises(Quarantined, match="another 600 s"):
        held.quarantine.check("m", http(), b"{1}")
    held.quarantine.check("m", http(), b"{2}")
    assert held.counted("serving_suspects_total") == 2


def test_it_ends(held: Held) -> None:
    held.suspect()
    held.now = 599
    assert held.refuses()
    held.now = 600
    assert not held.refuses()
    assert len(held.quarantine) == 0
    assert not held.quarantine._sizes


def test_it_begins_anew_when_another_engine_dies(held: Held) -> None:
    held.suspect()
    held.now = 500
    held.suspect()
    held.now = 1000
    assert held.refuses()
    assert len(held.quarantine) == 1
    assert held.counted("serving_suspects_total") == 1
    held.now = 1100
    assert not held.refuses()
    assert not held.quarantine._sizes


def test_a_conviction_acquits_those_that_were_named_for_the_same_deaths(held: Held) -> None:
    held.suspect("named once", replica="1")
    for replica in ("1", "3"):
        held.suspect("named twice", replica=replica)
    held.suspect("named later", replica="3")
    held.suspect("of another", model="another", replica="1")
    held.quarantine.convict("m", {"1", "2"}, [fingerprint(call("killer"), b"")])
    prompts = ("killer", "named once", "named twice", "named later")
    assert [held.refuses(prompt) for prompt in prompts] == [True, False, True, True]
    assert held.refuses("of another", model="another")
    assert sum(held.quarantine._sizes.values()) == len(held.quarantine) == 4


def test_its_number_is_bounded_and_the_oldest_goes(log: Log) -> None:
    held = Held(log, limit=3)
    for word in ("1", "2", "3", "1", "4"):
        held.suspect(word)
    assert [held.refuses(word) for word in "1234"] == [True, False, True, True]
    assert sum(held.quarantine._sizes.values()) == 3


def test_zero_seconds_turn_it_off(log: Log) -> None:
    held = Held(log, keep_s=0)
    held.suspect()
    assert not held.refuses()


@pytest.mark.parametrize(("prompt", "streams", "fails"), [
    ("one", False, True),
    ("one", True, False),
    ("two", False, False),
])  # fmt: skip
async def test_twins_on_other_replicas_are_given_up(
    held: Held, prompt: str, streams: bool, fails: bool
) -> None:
    """Unless a part of their answer shows that the step that first ran them went well."""
    answer = Answer(SimpleNamespace(cancel=lambda _: None), 1)
    response: Any = SimpleNamespace(streams=streams)
    with held.quarantine.sent(answer, "m", call(prompt), b"", response):
        held.suspect()
    assert (answer.failed is not None) is fails
    if answer.failed is not None:
        assert isinstance(answer.failed.error, Quarantined)
        assert not answer.failed.retryable
    assert not held.quarantine._sent


async def test_a_twin_of_one_that_kills_in_a_later_step_is_given_up_whatever_it_has_sent(
    held: Held,
) -> None:
    answer = Answer(SimpleNamespace(cancel=lambda _: None), 1)
    response: Any = SimpleNamespace(streams=True)
    with held.quarantine.sent(answer, "m", call(), b"", response):
        held.quarantine.convict("m", {"1"}, [fingerprint(call(), b"")])
    assert answer.failed is not None


async def test_a_twin_whose_answer_has_begun_goes_on(held: Held) -> None:
    answer = Answer(SimpleNamespace(cancel=lambda _: None), 1)
    response: Any = SimpleNamespace(streams=False)
    with held.quarantine.sent(answer, "m", call(), b"", response):
        answer.on_data(b"data", [])
        held.suspect()
    assert answer.failed is None
