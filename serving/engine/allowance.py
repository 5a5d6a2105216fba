"""How far a call may go that is paid for as it runs.

The router says how many completion tokens a call may make (`Allowance`). Before it has made them,
the call says what it has used (`Spent`) and hears how far it may go now; if it hears nothing it
goes on, since an answer should not wait for the link. Only at an allowance that is the last one it
ends.

Nothing is counted for a token: a timer looks at the engine's own count when half of the way to the
next mark should be behind, by the speed so far, so it looks a handful of times for each allowance.
Only a stream that is about to end is looked at with each part of it (`ending`), so that it ends at
the token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from serving.engine.interface import Tally
from serving.errors import BudgetExhausted
from serving.wire.messages import Allowance, Spent

SPENT = BudgetExhausted("what the request may use is used up")
# The longest and the shortest time between two looks, in seconds.
LOOK_S, LOOK_SOON_S = 0.25, 0.002


class Spending:
    """Watches one call. `ending` is true if it has its last allowance, `stopped` once it has been
    ended for that; the tally's finish reason says so too.

    Args:
        say: called with what the call has used, when it needs to hear how far it may go.
        stop: ends the call.
    """

    def __init__(
        self, tally: Tally, tokens: int, say: Callable[[Spent], None], stop: Callable[[], object]
    ) -> None:
        self._tally = tally
        self._allowance = Allowance(tokens)
        self._mark = tokens // 2
        self._say = say
        self._stop = stop
        self._asked = False
        # Tokens a second, of late.
        self._speed = 0.0
        self._seen, self._seen_at = 0, time.monotonic()
        self.stopped = False
        self.ending = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(LOOK_S / 10, self.look)

    def allow(self, allowance: Allowance) -> None:
        """The router has answered."""
        self._allowance = allowance
        self._asked = False
        self.ending = allowance.last
        made = self._tally.completion_tokens
        tokens = allowance.tokens
        self._mark = tokens if allowance.last else made + (tokens - made) // 2
        self.look()

    def close(self) -> None:
        """The call has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Look at what the call has used, and do what is due."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._tally.refresh()
        made = self._tally.completion_tokens
        if made >= self._mark and self._allowance.last:
            self.stopped = True
            self._tally.finish_reason = BudgetExhausted.code
            self.close()
            self._stop()
            return
        if made >= self._mark and not self._asked:
            self._asked = True
            tally = self._tally
            self._say(Spent(tally.prompt_tokens, tally.cached_tokens, made))
        self._timer = self._loop.call_later(self._pause_s(made), self.look)

    def _pause_s(self, made: int) -> float:
        """Half of the time that the tokens up to the mark should take."""
        now = time.monotonic()
        if now - self._seen_at > LOOK_SOON_S:
            self._speed = (made - self._seen) / (now - self._seen_at)
            self._seen, self._seen_at = made, now
        speed = self._speed
        if self._asked or not speed:
            return LOOK_S / 10
        return min(LOOK_S, max(LOOK_SOON_S, (self._mark - made) / speed / 2))
