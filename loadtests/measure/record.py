"""What became of one request, as its client saw it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended; each request has exactly one."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"  # its client left, as planned
    REJECTED = "rejected"  # 429, or 503 before anything of the answer


@dataclass(slots=True)
class Record:
    """Times are seconds since the run's start, on one clock.

    The headline latencies count from `due_s`: a request that the client or the server made wait
    had that wait. Service times count from `sent_s` and stand beside them.
    """

    index: int
    phase: str
    traffic: str
    model: str
    account: str
    priority: int | None
    session: int
    turn: int
    stream: bool
    counted: bool
    due_s: float
    # The client took it up: it took a connection, or began to open one. 0: it never did.
    begun_s: float = 0.0
    sent_s: float = 0.0  # the last byte of the request was handed to the kernel
    first_s: float | None = None  # the first event with text arrived (streams)
    end_s: float = 0.0  # the answer was complete, or had failed
    # When each event with text arrived (streams). Events of one read have the same time.
    event_s: array[float] = field(default_factory=lambda: array("d"))
    outcome: Outcome = Outcome.ERROR
    status: int = 0  # of HTTP; 0: no answer
    error: str | None = None  # a short kind that can be counted, without IDs
    request_id: str = ""  # the service's own, to look it up there
    retry_after: bool = False  # the answer said when to come back
    prompt_tokens: int = 0  # as the service's usage says
    cached_tokens: int = 0
    completion_tokens: int = 0
    usage_seen: bool = False  # False: the tokens above are not known
    max_tokens: int = 0  # as it was asked for; 0: not known
    text_bytes: int = 0
    checked: bool = False  # it had a reference text
    wrong: bool = False  # its text differs from it, or what came is no beginning of it

    @property
    def lag_s(self) -> float:
        """How long the client itself made it wait. Connecting and sending take the service, too."""
        return self.begun_s - self.due_s

    @property
    def ttft_s(self) -> float | None:
        """From due to the first token."""
        return None if self.first_s is None else self.first_s - self.due_s

    @property
    def e2e_s(self) -> float:
        """From due to the end."""
        return self.end_s - self.due_s

    @property
    def tpot_s(self) -> float | None:
        """Time for each token after the first; None for whole answers and single tokens."""
        if self.first_s is None or self.completion_tokens < 2 or not self.event_s:
            return None
        return (self.event_s[-1] - self.first_s) / (self.completion_tokens - 1)
