from __future__ import annotations

import random

import pytest

from serving.observability.logs import Log
from serving.router.doubts import APART_S, ENOUGH, RECENT, RECENT_SIZE, Doubts
from serving.wire.fingerprint import Doubt, Fingerprint, fingerprint
from serving.wire.messages import CompletionCall, ImageRef, Sampling


def call(prompt: str) -> CompletionCall:
    return CompletionCall("r1", "m", prompt, False, Sampling(), "m")


def of(prompt: str) -> Fingerprint:
    return fingerprint(call(prompt), b"")


class Court:
    """The doubts of one router, and whom they convicted."""

    def __init__(self, log: Log, keep_s: float = 600, limit: int = 1000) -> None:
        self.now = 0.0
        self.convicts: list[tuple[str, Fingerprint]] = []
        self.doubts = Doubts(
            lambda model, _, guilty: self.convicts.extend((model, each) for each in guilty),
            log,
            keep_s=keep_s,
            rng=random.Random(1),
            limit=limit,
            clock=lambda: self.now,
        )

    def death(self, replica: str, model: str = "m", **places: int) -> list[str]:
        """A death beside these prompts at these places; returns who was convicted of it."""
        before = len(self.convicts)
        self.doubts.hear(model, replica, [Doubt(of(p), at) for p, at in places.items()])
        names = {of(prompt): prompt for prompt in places}
        return sorted(names[each] for _, each in self.convicts[before:])

    def passes(self, prompt: str, times: int = 1) -> None:
        for _ in range(times):
            self.doubts.passed("m", call(prompt), b"")

    def holds(self, prompt: str, model: str = "m") -> bool:
        home = self.doubts.home(model, call(prompt), b"")
        assert home in (None, of(prompt).digest)
        return home is not None


@pytest.fixture
def court(log: Log) -> Court:
    return Court(log)


def test_one_death_convicts_nobody(court: Court) -> None:
    assert court.death("1", killer=5, beside=9) == []
    assert court.death("1", killer=5, beside=9) == [], "the same death, told twice"
    assert court.holds("killer")
    assert court.holds("beside")
    assert not court.holds("stranger")
    assert not court.holds("killer", model="another")
    assert court.death("2", model="another", killer=5) == []


def test_who_was_at_the_same_place_both_times_is_convicted(court: Court) -> None:
    """Although the same others stood beside it, and more of them."""
    court.death("1", killer=5, beside=9, another=0)
    assert court.death("2", killer=5, beside=5, another=4, new=0) == ["killer"]
    assert len(court.doubts) == 0, "both deaths are explained"


def test_a_conviction_explains_only_the_deaths_it_was_made_of(court: Court) -> None:
    court.death("1", killer=5, beside=9)
    court.death("2", other=3)
    assert court.death("3", killer=5) == ["killer"]
    assert court.holds("other")
    assert not court.holds("beside")


def test_one_that_kills_anywhere_is_convicted_with_whom_it_was_there_both_times(
    court: Court,
) -> None:
    court.death("1", killer=5, beside=9, gone=3)
    assert court.death("2", killer=6, beside=2, new=0) == ["beside", "killer"]


def test_whoever_has_ended_well_meanwhile_is_only_convicted_at_the_same_place(
    court: Court,
) -> None:
    court.death("1", killer=5, beside=9)
    court.passes("beside")
    assert court.death("2", killer=6, beside=2) == ["killer"]
    court.death("3", now_and_then=0, beside=1)
    court.passes("now_and_then")
    assert court.death("4", now_and_then=0) == ["now_and_then"]


def test_whoever_ends_well_often_is_in_doubt_no_longer(court: Court) -> None:
    court.death("1", popular=0, killer=5)
    court.passes("popular", ENOUGH)
    assert not court.holds("popular")
    assert court.death("2", popular=0, another=3) == []


def test_whoever_ended_well_often_before_is_in_no_doubt(court: Court) -> None:
    court.passes("popular", ENOUGH)
    court.passes("seldom")
    court.passes("x" * (RECENT_SIZE + 1), ENOUGH)
    seeing = CompletionCall("r1", "m", "", False, Sampling(), "m", images=(ImageRef("data:,"),))
    court.doubts.passed("m", seeing, b"")
    court.death("1", popular=0, seldom=1, killer=5)
    assert [court.holds(prompt) for prompt in ("popular", "seldom", "killer")] == [
        False, True, True,
    ]  # fmt: skip
    court.passes("seldom", ENOUGH - 1)
    assert not court.holds("seldom")
    assert len(court.doubts._recent) == ENOUGH * 2
    court.passes("another", RECENT)
    assert len(court.doubts._recent) == RECENT


def test_of_a_call_of_several_requests_one_place_is_enough(court: Court) -> None:
    for place in (3, 8):
        court.doubts.hear("m", "1", [Doubt(of("killer"), place)])
    assert court.death("2", killer=8, beside=1) == ["killer"]


def test_a_second_death_counts_for_a_while(court: Court) -> None:
    court.death("1", killer=5)
    court.now = 599
    assert court.holds("killer")
    court.now = 600
    assert not court.holds("killer")
    assert court.death("2", killer=5) == []
    assert len(court.doubts) == 1


def test_their_number_is_bounded_and_the_oldest_goes(log: Log) -> None:
    court = Court(log, limit=2)
    court.death("1", one=1, two=2, three=3)
    assert [court.holds(prompt) for prompt in ("one", "two", "three")] == [False, True, True]
    assert sum(court.doubts._sizes.values()) == 2


def test_zero_seconds_turn_it_off(log: Log) -> None:
    court = Court(log, keep_s=0)
    court.death("1", killer=5)
    assert court.death("2", killer=5) == []
    assert not court.holds("killer")


def test_they_are_sent_again_at_random_moments(court: Court) -> None:
    moments = [court.doubts.apart_s() for _ in range(100)]
    assert 0 <= min(moments) < 0.1 * APART_S
    assert 0.9 * APART_S < max(moments) <= APART_S
