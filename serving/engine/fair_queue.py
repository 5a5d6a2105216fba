"""The order in which requests that wait get their turn: fair between accounts, by tokens.

This is the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models"
(arXiv 2401.00588, algorithms 2 and 4). Each account has a counter of the service it has had: so
much for each token of its prompts, so much for each token written for it, divided by its weight.
The next turn is that of the least counter among the accounts that wait. An account that begins to
wait is lifted to the least counter of those, so that nobody saves up turns while away. Of two
accounts that wait all the time, neither gets ahead by more than

    2 * max(prompt_weight * longest prompt, completion_weight * tokens of a full batch)

in service divided by weight. Requests that are marked as batch have counters of their own and get a
turn when no other request waits for one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

# Flows whose counters are kept. Of more, those that are not in use and furthest behind are
# forgotten: they would be lifted anyway.
MAX_FLOWS = 4096


class Flow(NamedTuple):
    """What has a counter: an account's requests of one priority."""

    owner: str
    batch: bool = False


class Claim:
    """One request that wants a turn, or has had it.

    Args:
        name: its ID.
        flow: whose it is.
        weight: the share of its account, as a multiple of the others'.
        tokens: of its prompt.
        size: bytes that it takes while it waits.
    """

    __slots__ = ("charged", "flow", "name", "size", "text", "tokens", "waiter", "waits", "weight")

    def __init__(self, name: str, flow: Flow, weight: float, tokens: int, size: int = 0) -> None:
        self.name = name
        self.flow = flow
        self.weight = weight
        self.tokens = tokens
        self.size = size
        self.charged = 0  # completion tokens
        self.waits = False
        # For whoever holds the queue: where to count those tokens, and what waits for the turn.
        self.text: Any = None
        self.waiter: Any = None


class FairQueue:
    """Claims that wait, and the counters of their flows. Not bounded by itself.

    Args:
        prompt_weight, completion_weight: what a token of each kind costs, `w_p` and `w_q` of the
            paper.
    """

    def __init__(self, prompt_weight: float = 1.0, completion_weight: float = 2.0) -> None:
        self._prompt_weight = prompt_weight
        self._completion_weight = completion_weight
        self._counters: dict[Flow, float] = {}
        # Of each priority, the flow that was the last to get a turn or to give it up.
        self._last: list[Flow | None] = [None, None]
        self._waiting: dict[Flow, OrderedDict[Claim, None]] = {}
        self._lengths = [0, 0]
        self.size = 0

    def __len__(self) -> int:
        return self._lengths[0] + self._lengths[1]

    def waiting(self, *, batch: bool) -> int:
        """How many claims of a priority wait."""
        return self._lengths[batch]

    def counter(self, flow: Flow) -> float:
        """The service that a flow has had, divided by its weight, with what it was lifted by."""
        return self._counters.get(flow, 0.0)

    def arrive(self, flow: Flow) -> None:
        """Lift the counter of a flow whose next claim has come; call it before `push` or, where
        the claim need not wait, before `charge_prompt`."""
        if flow in self._waiting:
            return
        others = [self._counters[other] for other in self._waiting if other.batch is flow.batch]
        last = self._last[flow.batch]
        least = min(others) if others else self._counters.get(last, 0.0) if last else 0.0
        known = self._counters.get(flow)
        if known is None and len(self._counters) >= MAX_FLOWS:
            self._forget()
        self._counters[flow] = least if known is None else max(known, least)

    def push(self, claim: Claim) -> None:
        """Put a claim behind those of its flow."""
        self._waiting.setdefault(claim.flow, OrderedDict())[claim] = None
        self._lengths[claim.flow.batch] += 1
        self.size += claim.size
        claim.waits = True

    def remove(self, claim: Claim) -> None:
        """Take a claim out, for its turn or because it was given up; it must be there."""
        flow = claim.flow
        claims = self._waiting[flow]
        del claims[claim]
        if not claims:
            del self._waiting[flow]
        self._last[flow.batch] = flow
        self._lengths[flow.batch] -= 1
        self.size -= claim.size
        claim.waits = False

    def candidates(self) -> Iterator[Claim]:
        """The first claim of each flow, in the order of their turns. Of two equal counters that of
        the flow that has begun to wait later comes first: it has not just had a turn."""
        for batch in (False, True):
            for claims in self._in_order(batch):
                yield next(iter(claims))

    def rounds(self) -> Iterator[Claim]:
        """Every claim: the first of each flow in the order of their turns, the second of each, and
        so on. What several turns at once are given by; the queue must not change meanwhile."""
        for batch in (False, True):
            for round_ in zip_longest(*self._in_order(batch)):
                yield from (claim for claim in round_ if claim is not None)

    def _in_order(self, batch: bool) -> list[OrderedDict[Claim, None]]:
        if not self._lengths[batch]:
            return []
        flows = [flow for flow in reversed(self._waiting) if flow.batch is batch]
        flows.sort(key=self._counters.__getitem__)
        return [self._waiting[flow] for flow in flows]

    def all(self) -> list[Claim]:
        """Every claim that waits, in no order that means anything."""
        return [claim for claims in self._waiting.values() for claim in claims]

    def newest_of_longest(self, flow: Flow, *, by_size: bool = False) -> Claim | None:
        """Who is to leave if there is no room for one more claim of `flow`: the newest claim of the
        flow that has most of them (or of the bytes) waiting. None if that is `flow` itself."""

        def measure(each: Flow) -> int:
            claims = self._waiting.get(each, ())
            return sum(claim.size for claim in claims) if by_size else len(claims)

        longest = max(self._waiting, key=measure, default=flow)
        # One more, or two flows would put each other out by turns.
        if measure(longest) <= measure(flow) + 1:
            return None
        return next(reversed(self._waiting[longest]))

    def charge_prompt(self, claim: Claim) -> None:
        """Charge a claim that gets its turn for its prompt."""
        self._counters[claim.flow] += self._prompt_weight * claim.tokens / claim.weight
        self._last[claim.flow.batch] = claim.flow

    def charge_completion(self, claim: Claim, written: int) -> None:
        """Charge for what has been written since the last time; `written` tokens are all of it."""
        if (more := written - claim.charged) > 0:
            claim.charged = written
            if claim.flow in self._counters:
                self._counters[claim.flow] += self._completion_weight * more / claim.weight

    def _forget(self) -> None:
        idle = sorted(
            (flow for flow in self._counters if flow not in self._waiting),
            key=self._counters.__getitem__,
        )
        for flow in idle[: MAX_FLOWS // 4]:
            del self._counters[flow]
