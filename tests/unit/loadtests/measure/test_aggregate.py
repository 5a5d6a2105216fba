"""The aggregate counts each request once, and merges exactly."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.measure.aggregate import Aggregate, Live, is_good
from loadtests.measure.client import ClientFigures
from loadtests.measure.cuts import cuts, select, span
from loadtests.measure.record import Outcome, Record
from loadtests.measure.summarise import windows_of
from loadtests.scenarios.arrivals import Constant, Phase
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.traffic import Slo, Traffic
from tests.unit.loadtests.measure.records import PHASES, failed, records, streamed

STEADY = Constant(kind="constant", rate=1)


def scenario(**fields: object) -> Scenario:
    return Scenario(
        name="s",
        phases=tuple(
            Phase(name=name, seconds=10, arrivals=STEADY, counted=counted)
            for name, counted in PHASES.items()
        ),
        traffic=(Traffic(name="chat", slo=Slo(ttft_ms=500)), Traffic(name="batch")),
        **fields,  # type: ignore[arg-type]
    )


def of(found: list[Record]) -> Aggregate:
    aggregate = Aggregate.of(scenario())
    for record in found:
        aggregate.add(record)
    return aggregate


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), max_size=30), st.data())
def test_any_split_in_any_order_merges_to_the_whole(
    found: list[Record], data: st.DataObject
) -> None:
    parts: list[list[Record]] = [[], [], []]
    for record in found:
        parts[data.draw(st.integers(0, 2))].append(record)
    merged = Aggregate.of(scenario())
    for place in data.draw(st.permutations(range(3))):
        merged.merge(Aggregate.from_bytes(of(parts[place]).to_bytes()))
    whole = of(found)
    assert merged.to_bytes() == whole.to_bytes()
    windows = windows_of(scenario())
    assert cuts(merged.cells, windows) == cuts(whole.cells, windows)
    assert merged.timeline.seconds() == whole.timeline.seconds()


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), max_size=30))
def test_totals_are_those_of_the_records(found: list[Record]) -> None:
    counted = [record for record in found if record.counted]
    cell = span(select(of(found).cells, {})).cell
    assert cell.requests == len(counted)
    for outcome in Outcome:
        assert cell.outcomes[outcome] == sum(record.outcome is outcome for record in counted)
    assert cell.completion_tokens == sum(record.completion_tokens for record in counted)
    assert cell.wrong == sum(record.wrong for record in counted)
    assert sum((cell.errors or {}).values()) == cell.error + cell.rejected
    whole = [record for record in counted if record.outcome is Outcome.OK]
    assert len(cell.e2e or ()) == len(whole)
    assert len(cell.lag or ()) == len(counted)
    assert len(cell.ttft or ()) == sum(record.first_s is not None for record in counted)
    assert len(cell.gap or ()) == sum(max(0, len(record.event_s) - 1) for record in counted)


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), max_size=30))
def test_the_timeline_adds_up(found: list[Record]) -> None:
    steps = of(found).timeline.seconds()
    assert sum(step.due for step in steps) == len(found)
    assert sum(step.sent for step in steps) == len(found)
    assert sum(step.ended for step in steps) == len(found)
    assert sum(step.ok + step.failed + step.rejected + step.cancelled for step in steps) == len(
        found
    )
    tokens = sum(r.completion_tokens if r.usage_seen else len(r.event_s) for r in found)
    assert sum(step.tokens for step in steps) == tokens
    assert not steps or steps[-1].in_flight == 0


def test_the_timeline_counts_where_things_happened() -> None:
    steps = of([streamed(0.5, (0.1, 0.6, 2.0, 2.1), completion_tokens=8)]).timeline.seconds()
    assert [step.due for step in steps] == [1, 0, 0]
    assert [step.sent for step in steps] == [1, 0, 0]
    assert [step.ended for step in steps] == [0, 0, 1]
    assert [step.tokens for step in steps] == [2, 2, 4]
    assert [step.in_flight for step in steps] == [1, 1, 0]
    assert steps[0].ttft_p99_ms == pytest.approx(100)
    assert steps[0].e2e_p99_ms == pytest.approx(2100)


def test_latency_counts_from_due_and_service_time_from_sent() -> None:
    cell = span(select(of([streamed(1.0, (0.5, 0.7), late_s=0.2)]).cells, {})).cell
    assert cell.ttft is not None
    assert cell.service_ttft is not None
    assert cell.lag is not None
    assert cell.ttft.highest == 500_000
    assert cell.service_ttft.highest == pytest.approx(300_000, abs=1)
    assert cell.lag.highest == pytest.approx(200_000, abs=1)


def test_a_request_that_was_never_begun_has_no_lag() -> None:
    cell = span(select(of([failed(5.0, 0, "never sent", begun_s=0.0, sent_s=0.0)]).cells, {})).cell
    assert (cell.unsent, cell.lag, cell.in_time, cell.error) == (1, None, 0, 1)


def test_in_time_is_before_the_phase_ends() -> None:
    """`warm` ends at 10 s; a client may be 20 ms late."""
    found = [
        streamed(9.99, late_s=0.02, phase="warm", counted=False),
        streamed(9.99, late_s=0.05, phase="warm", counted=False),
        # A later turn that became due after the end could not be sent before.
        streamed(12.0, late_s=0.001, phase="warm", counted=False),
    ]
    assert sum(cell.in_time for cell in of(found).cells.values()) == 2


@pytest.mark.parametrize(
    ("record", "good"),
    [
        (streamed(0, (0.4, 0.5)), True),
        (streamed(0, (0.6, 0.7)), False),  # first token too late
        (streamed(0, (0.4, 0.5), checked=True, wrong=True), False),
        (streamed(0, (0.4, 0.5), outcome=Outcome.CANCELLED), False),
        (failed(), False),
        (streamed(0, (), stream=False, first_s=None, end_s=3.0), True),  # a whole answer
    ],
)
def test_goodput(record: Record, good: bool) -> None:
    assert is_good(record, Slo(ttft_ms=500)) is good


def test_goodput_by_all_limits() -> None:
    record = streamed(0, (0.1, 0.2, 0.3))  # 100 ms for each token
    assert is_good(record, Slo(tpot_ms=101, e2e_ms=301))
    assert not is_good(record, Slo(tpot_ms=99))
    assert not is_good(record, Slo(e2e_ms=299))
    assert is_good(record, None)


def test_errors_stay_bounded() -> None:
    aggregate = of([failed(error=f"kind {n}") for n in range(1500)])
    cell = span(select(aggregate.cells, {})).cell
    assert len(cell.errors or {}) == 1001
    first, *_ = cuts(aggregate.cells, windows_of(scenario()))
    assert len(first.errors) == 51
    assert sum(first.errors.values()) == 1500


def test_what_the_processes_say_travels_along() -> None:
    one, two = Aggregate.of(scenario()), Aggregate.of(scenario())
    one.clients.append(ClientFigures(name="1", wall_s=30, cpu_s=3, due={"steady": 4}))
    two.clients.append(ClientFigures(name="0", wall_s=30, cpu_s=2))
    one.merge(Aggregate.from_bytes(two.to_bytes()))
    assert [client.name for client in one.clients] == ["0", "1"]
    assert Aggregate.from_bytes(one.to_bytes()).clients == one.clients


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(ValueError, match="no state of a run"):
        Aggregate.from_bytes(b"nonsense")


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = of([]).to_bytes()
    monkeypatch.setattr("loadtests.measure.aggregate._FORMAT", 2)
    with pytest.raises(ValueError, match="version 1"):
        Aggregate.from_bytes(data)


def test_timelines_of_other_steps_do_not_merge() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Aggregate({}, {}).merge(Aggregate({}, {}, step_s=2))


def test_the_live_view_adds_up_over_processes() -> None:
    one, two = of([streamed(), failed(status=429, error="HTTP 429")]), of([streamed()])
    both = one.live(due=5, sent=3).plus(two.live(due=2, sent=1))
    assert (both.due, both.sent) == (7, 4)
    assert both.ended == {"steady": 3}
    assert both.outcomes == {"ok": 2, "rejected": 1}
    assert both.errors == {"HTTP 429": 1}
    assert both.tokens == 6
    assert both.ttft_us == [100_000, 100_000]
    assert one.live().ttft_us == []  # told once
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(both), type=Live) == both
