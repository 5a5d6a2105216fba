"""What one request holds of its limits, from its admission to its end.

At admission that is a request, a place in flight, and tokens: the prompt, as far as it can be
guessed, and a first block of the completion. While the engine generates, the engine says what has
been used and the next block is taken (`extend`), so a large `max_tokens` holds nothing that is not
used. In the end (`release`) what is held is set to what was used. That happens once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from serving.accounts.quota.meter import SOON, Meter, Unit
from serving.accounts.quota.shelf import Subject
from serving.accounts.quota.words import Headers, headers, limit_words
from serving.catalogue.price import Price
from serving.catalogue.quota import BUDGETS
from serving.catalogue.rate import SECOND
from serving.errors import BudgetExhausted, ServingError, StoreUnavailable
from serving.wire.messages import Allowance, Spent

# Tokens of a completion that are taken at a time: first, and at most.
BLOCK, MAX_BLOCK = 64, 1024
# Those that an answer goes on for while a lease is being renewed.
CREDIT = 16


class Used(NamedTuple):
    """Tokens that a request has used so far, as the engine counts them."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


class Hold:
    """Made by the limiter, which has taken what `tokens` and `cost` say."""

    __slots__ = (
        "_block",
        "_cost",
        "_meters",
        "_price",
        "_released",
        "_taken_at",
        "_tokens",
        "exhausted",
        "seen",
        "subjects",
    )

    def __init__(
        self, subjects: tuple[Subject, ...], price: Price | None, taken_at: int, prompt: int
    ) -> None:
        self.subjects = subjects
        self._price = price
        self._taken_at = taken_at
        self._meters: tuple[tuple[Unit, Meter], ...] = tuple(
            pair for subject in subjects for pair in subject.meters
        )
        self._tokens = prompt + BLOCK
        self._cost = self._price_of(Used(prompt, 0, BLOCK))
        self._block = BLOCK
        self._released = False
        # What the engine has said last.
        self.seen: Used | None = None
        # Why the request was told to stop, if it was.
        self.exhausted: ServingError | None = None

    @property
    def spends(self) -> bool:
        """True if it has to be told what the request uses on its way."""
        return any(subject.spends for subject in self.subjects)

    @property
    def granted(self) -> int:
        """How many completion tokens are covered at first."""
        return BLOCK

    def headers(self) -> Headers:
        """What remains, for the response."""
        return headers(self.subjects, self._taken_at)

    def amounts(self) -> tuple[int, int, int, int]:
        """What is taken at admission, by the number of its `Unit`."""
        return 1, 1, self._tokens, self._cost

    def spent(self, spent: Spent) -> Allowance:
        """What the engine has used so far; how far it may go."""
        used = Used(spent.prompt_tokens, spent.cached_tokens, spent.completion_tokens)
        return self.extend(used, time.time_ns())

    def extend(self, used: Used, now: int) -> Allowance:
        """Take the next block, or what there is left of it. The prompt is what the engine says from
        now on, and no longer a guess.

        A limit by the minute ends no answer: what is used beyond it is waited for by those that
        come later. A budget does, when nothing is left of it.
        """
        self.seen = used
        self._block = block = min(2 * self._block, MAX_BLOCK)
        try:
            wait = self._hold(used, block, now)
        except StoreUnavailable as error:
            self.exhausted = error
            return Allowance(used.completion, last=True)
        if not wait:
            return Allowance(used.completion + block)
        if wait <= SOON:
            # There is more, and this router's lease is being renewed.
            self._hold(used, CREDIT, now, beyond=True)
            return Allowance(used.completion + CREDIT)
        more, part, last = 0, block // 2, True
        while part:
            wait = self._hold(used, more + part, now)
            more += 0 if wait else part
            last = last and not 0 < wait <= SOON
            part //= 2
        return Allowance(used.completion + more, last)

    def release(self, used: Used | None) -> None:
        """Hold nothing any more, and count what was used; None: as much as the engine has said
        last. A second call does nothing."""
        if self._released:
            return
        self._released = True
        used = used or self.seen or Used()
        tokens, cost = used.prompt + used.completion, self._price_of(used)
        for unit, meter in self._meters:
            if unit is Unit.IN_FLIGHT:
                meter.charge(-1, self._taken_at)
            elif unit is Unit.TOKENS and tokens != self._tokens:
                meter.charge(tokens - self._tokens, self._taken_at)
            elif unit is Unit.COST and cost != self._cost:
                meter.charge(cost - self._cost, self._taken_at)

    def _hold(self, used: Used, more: int, now: int, *, beyond: bool = False) -> int:
        """Hold what is used and so many completion tokens more: 0. If that does not fit, hold as
        much as before, and return in how many nanoseconds it may; `beyond`: hold it anyway."""
        wanted = used._replace(completion=used.completion + more)
        tokens, cost = wanted.prompt + wanted.completion, self._price_of(wanted)
        taken: list[tuple[Meter, int]] = []
        for unit, meter in self._meters:
            if unit is Unit.TOKENS:
                change = tokens - self._tokens
            elif unit is Unit.COST:
                change = cost - self._cost
            else:
                continue
            if change > 0 and not beyond and meter.name in BUDGETS:
                try:
                    wait = meter.take(change, now)
                except StoreUnavailable:
                    give_back(taken, now)
                    raise
                if wait:
                    self.exhausted = exhausted(self._subject_of(meter), meter, wait)
                    give_back(taken, now)
                    return wait
            else:
                meter.charge(change, now if change > 0 else self._taken_at)
            taken.append((meter, change))
        self._tokens, self._cost = tokens, cost
        return 0

    def _subject_of(self, meter: Meter) -> Subject:
        return next(s for s in self.subjects for _, each in s.meters if each is meter)

    def _price_of(self, used: Used) -> int:
        if self._price is None:
            return 0
        return self._price.cost(used.prompt, used.cached, used.completion)


def give_back(taken: Iterable[tuple[Meter, int]], now: int) -> None:
    """Take back what was counted at `now`."""
    for meter, units in taken:
        meter.charge(-units, now)


def exhausted(subject: Subject, meter: Meter, wait: int) -> BudgetExhausted:
    """What a request is told that stops on its way."""
    return BudgetExhausted(
        f"the answer ends here: {limit_words(subject, meter)} is used up",
        retry_after_s=wait / SECOND,
    )
