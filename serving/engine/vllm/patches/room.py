"""What the engine core has to do, as this process knows it, and whom there is room for.

The core gets as many requests as it runs at a time, and one step's worth of prompts that it has yet
to run. While there is more than one flow (an account's requests of one priority), a part of the
sequences is kept free for flows that have few of them, so that they need not wait until another
account's request ends; and the others start their prompts a few at a time, and may be held to fewer
sequences than the core could run, so that its steps stay short (`serving/engine/pace.py`). Where
prompts are run in pieces (`serving/engine/vllm/prefill.py`), a step has one piece of each flow: of
prompts that come many at a time, so many as that holds.
"""

from __future__ import annotations

import time
from typing import Any

from serving.engine.fair_queue import Claim, FairQueue, Flow
from serving.engine.pace import LEAST, Pace
from serving.engine.queue_limits import QueueLimits

# For how long after the last change from one flow to another there is more than one; and for how
# long steps are kept short for that, which costs the other flow more than a part kept free.
MIXED_S = 600.0
PACED_S = 60.0
# Fewer sequences than these are not kept for anybody.
SHARED = 3


class Room:
    """The claims whose requests the core has.

    Args:
        scheduler: vLLM's configuration of it.
        states: vLLM's requests by ID; those that ended are not there.
        queue: is charged for what the core has written.
    """

    def __init__(
        self, scheduler: Any, states: dict[str, Any], queue: FairQueue, limits: QueueLimits
    ) -> None:
        self._most = int(scheduler.max_num_active_seqs or scheduler.max_num_seqs)
        self._tokens = int(scheduler.max_num_batched_tokens)
        self._reserve = limits.reserve if self._most > SHARED else 0.0
        self._pace = Pace(self._most, limits.step_ms / 1000)
        self._piece = int(scheduler.long_prefill_token_threshold)
        self._states = states
        self._queue = queue
        # As of the last look: claims, and of each flow its sequences and prompt tokens yet to run.
        self._running: dict[str, Claim] = {}
        self._held: dict[Flow, int] = {}
        self._ahead: dict[Flow, int] = {}
        # Prompt tokens that the step under way runs, at most: what there was when it began.
        self._prompts = 0
        self._flow: Flow | None = None
        self._mixed_until = 0.0
        self._paced_until = 0.0
        # What a flow may be ahead of another that is passed by: a step's worth of prompts.
        self.step_worth = limits.prompt_weight * self._tokens

    def mark(self, flow: Flow) -> None:
        """Note whose request has come. What is owed is charged before another flow is compared."""
        if flow != self._flow:
            self.look()
            if self._flow is not None:
                now = time.monotonic()
                self._mixed_until, self._paced_until = now + MIXED_S, now + PACED_S
            self._flow = flow

    def take(self, claim: Claim) -> None:
        """The claim's request goes to the core."""
        self._running[claim.name] = claim
        self._held[claim.flow] = self._held.get(claim.flow, 0) + 1
        self._ahead[claim.flow] = self._ahead.get(claim.flow, 0) + claim.tokens

    def step(self) -> None:
        """A step has ended."""
        if self._pace.bounded:
            # Those of the last look may have ended.
            running, prompts, ran = 0, 0, self._prompts
            for name, claim in self._running.items():
                if (state := self._states.get(name)) is not None:
                    running += 1
                    prompts += claim.tokens if state.is_prefilling else 0
            self._prompts = prompts
            self._pace.step(time.monotonic(), running, ran)

    def look(self) -> None:
        """See which claims have ended, and charge for what has been written since the last time."""
        running: dict[str, Claim] = {}
        held: dict[Flow, int] = {}
        ahead: dict[Flow, int] = {}
        for name, claim in self._running.items():
            if claim.text is not None:
                self._queue.charge_completion(claim, claim.text.num_output_tokens())
            if (state := self._states.get(name)) is not None:
                running[name] = claim
                held[claim.flow] = held.get(claim.flow, 0) + 1
                if state.is_prefilling:
                    ahead[claim.flow] = ahead.get(claim.flow, 0) + claim.tokens
        self._running, self._held, self._ahead = running, held, ahead

    def is_next_piece(self, claim: Claim) -> bool:
        """True unless a claim has to wait for prompts of its own flow, whatever room there is."""
        own = self._ahead.get(claim.flow, 0)
        return (
            not own
            or not self._piece
            or own + claim.tokens <= self._piece
            or time.monotonic() >= self._paced_until
        )

    def fits(self, claim: Claim) -> bool:
        """True if the core can take a claim, as of the last look."""
        if not self.is_next_piece(claim):
            return False
        most, tokens, now = self._most, self._tokens, time.monotonic()
        if now >= self._mixed_until:
            # A little ahead of what runs, so that the core need not wait for the next one.
            most += self._kept_of(most)
        elif self.is_light(claim):
            tokens *= 2
        else:
            paced = self._pace.most if now < self._paced_until else most
            if not self._is_behind(claim.flow, paced):
                most = paced - self._kept_of(paced)
                # A step that starts many of them would hold up all others.
                tokens = tokens // 4 * paced // self._most
        if len(self._running) >= most:
            return False
        ahead = sum(self._ahead.values())
        return not ahead or ahead + claim.tokens <= tokens

    def _is_behind(self, flow: Flow, paced: int) -> bool:
        """True for who has less than its share of the sequences that may run, where another has
        more than its own: it does not wait for those to end."""
        held = self._held
        share = paced // max(2, len(held))
        return held.get(flow, 0) < share < max(held.values(), default=0)

    def is_light(self, claim: Claim) -> bool:
        """True if the sequences that are kept free are for a claim like this."""
        return not claim.flow.batch and self._held.get(claim.flow, 0) < self._few()

    def priority(self, claim: Claim) -> int:
        """vLLM's, of a claim that was taken: the lowest comes first."""
        few = self._held.get(claim.flow, 0) <= self._few()
        return 2 * claim.flow.batch + (not few)

    def _few(self) -> int:
        """A flow that runs fewer requests than these gets its turn at once: what is kept of the
        sequences that may run now, and at least those few that make no step long."""
        return max(self._kept_of(self._pace.most), min(LEAST, self._kept_of(self._most)))

    def _kept_of(self, most: int) -> int:
        return max(1, int(most * self._reserve)) if self._reserve else 0
