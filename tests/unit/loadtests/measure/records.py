"""Records for tests: of a request that went well, and drawn by Hypothesis."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from loadtests.measure.record import Outcome, Record


def streamed(
    due_s: float = 0.0,
    events: Sequence[float] = (0.1, 0.2, 0.3),
    *,
    late_s: float = 0.001,
    **fields: Any,
) -> Record:
    """A stream whose events come so many seconds after it was due."""
    times = array("d", [due_s + event for event in events])
    record = Record(
        index=0,
        phase="steady",
        traffic="chat",
        model="m",
        account="",
        priority=None,
        session=0,
        turn=0,
        stream=True,
        counted=True,
        due_s=due_s,
        begun_s=due_s + late_s,
        sent_s=due_s + late_s,
        first_s=times[0] if times else None,
        end_s=times[-1] if times else due_s + late_s,
        event_s=times,
        outcome=Outcome.OK,
        status=200,
        prompt_tokens=10,
        completion_tokens=len(times),
        usage_seen=True,
        max_tokens=64,
    )
    for name, value in fields.items():
        setattr(record, name, value)
    return record


def failed(due_s: float = 0.0, status: int = 500, error: str = "HTTP 500", **fields: Any) -> Record:
    """A request without an answer."""
    rejected = status in (429, 503)
    settled: dict[str, Any] = {
        "outcome": Outcome.REJECTED if rejected else Outcome.ERROR,
        "status": status,
        "error": error,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "usage_seen": False,
        "end_s": due_s + 0.01,
        **fields,
    }
    return streamed(due_s, (), **settled)


PHASES = {"warm": False, "steady": True, "spike": True}


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Any record, of few models, accounts and phases."""
    phase = draw(st.sampled_from(sorted(PHASES)))
    outcome = draw(st.sampled_from(list(Outcome)))
    seconds = st.floats(0, 20, allow_nan=False)
    events = sorted(draw(st.lists(seconds, max_size=6)))
    whole = outcome in (Outcome.OK, Outcome.CANCELLED)
    return streamed(
        draw(st.floats(0, 30)),
        events,
        late_s=draw(st.floats(0.0001, 0.1)),
        phase=phase,
        counted=PHASES[phase],
        model=draw(st.sampled_from(["a", "b", "c"])),
        account=draw(st.sampled_from(["", "acme"])),
        priority=draw(st.sampled_from([None, 0, 5])),
        traffic=draw(st.sampled_from(["chat", "batch"])),
        outcome=outcome,
        status=200 if whole else draw(st.sampled_from([0, 404, 429, 500, 503])),
        error=None if whole else draw(st.sampled_from(["reset", "HTTP 500", "timeout"])),
        usage_seen=whole and draw(st.booleans()),
        completion_tokens=draw(st.integers(0, 50)),
        checked=(checked := draw(st.booleans())),
        wrong=checked and draw(st.booleans()),
    )
