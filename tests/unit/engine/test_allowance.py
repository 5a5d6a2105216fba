"""How a call is watched that may make so many tokens only."""

from __future__ import annotations

import pytest

from serving.engine.allowance import Spending
from serving.engine.interface import Tally
from serving.wire.messages import Allowance, Spent


class Call:
    """A call whose engine counts when it is asked to."""

    def __init__(self, tokens: int) -> None:
        self.made = 0
        self.said: list[Spent] = []
        self.stops = 0
        self.tally = Tally(prompt_tokens=7, count=self._count)
        self.spending = Spending(self.tally, tokens, self.said.append, self._stop)

    def _count(self) -> None:
        self.tally.completion_tokens = self.made

    def _stop(self) -> None:
        self.stops += 1

    def make(self, tokens: int) -> None:
        self.made += tokens
        self.spending.look()


async def test_it_says_once_what_it_has_used_before_it_comes_to_the_end() -> None:
    call = Call(64)
    call.make(31)
    assert call.said == []
    call.make(1)
    call.make(40)  # nobody has answered, and it goes on
    assert call.said == [Spent(7, 0, 32)]
    call.spending.allow(Allowance(200))
    call.make(63)
    assert len(call.said) == 1
    call.make(1)
    assert call.said[1:] == [Spent(7, 0, 136)]
    assert call.stops == 0
    call.spending.close()


@pytest.mark.parametrize("made", [99, 150])
async def test_it_ends_at_its_last_allowance(made: int) -> None:
    call = Call(64)
    call.make(made - 1)
    call.spending.allow(Allowance(99, last=True))
    assert call.spending.ending
    assert call.stops == (1 if made > 99 else 0)
    call.make(1)
    call.make(1)
    assert call.stops == 1
    assert call.spending.stopped
    assert call.tally.finish_reason == "budget_exhausted"


async def test_it_is_not_looked_at_after_its_end() -> None:
    call = Call(2)
    call.spending.close()
    call.make(5)
    call.spending.allow(Allowance(1, last=True))
    assert (call.said, call.stops) == ([], 0)
