from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from loadtests.load.plan import PHASE_STRIDE, plans, schedule, sources
from loadtests.load.planned import PhasePlan, Planned, Turns
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario
from tests.unit.loadtests.load.statistics import SIGMAS, chi_square

POISSON = {"kind": "poisson", "rate": 20}
PLAIN = {"name": "plain", "models": {"a": 1}}
EVERYTHING: list[dict[str, Any]] = [
    {
        "name": "one",
        "custom_ids": {"pattern": "llama.{n:03d}", "count": 50},
        "accounts": [{"name": "x", "weight": 3}, {"name": "y"}],
        "prompt": {"tokens": {"kind": "lognormal", "median": 40}},
        "output": {"kind": "uniform", "low": 1, "high": 9},
        "shared_prefix": {"tokens": 30, "groups": 5, "exponent": 1},
        "session": {
            "turns": {"kind": "uniform", "low": 1, "high": 4},
            "think_s": {"kind": "exponential", "mean": 2},
        },
        "cancel": {
            "share": "40%",
            "after_tokens": 3,
            "after_s": {"kind": "exponential", "mean": 1},
        },
        "read": {"share": 0.5, "bytes_per_s": 100},
    },
    {
        "name": "two",
        "weight": 0.5,
        "endpoint": "chat",
        "models": {"a": 1, "b": 2},
        "images": {"count": {"kind": "uniform", "low": 1, "high": 2}, "width": 4, "height": 4},
        "priority": 3,
        "body": {"top_p": 0.9},
    },
]


def scenario(
    traffic: list[dict[str, Any]] | None = None,
    phases: list[dict[str, Any]] | None = None,
    **rest: Any,
) -> Scenario:
    phases = phases or [
        {"name": "warm-up", "seconds": 5, "arrivals": POISSON, "counted": False},
        {"name": "main", "seconds": 20, "arrivals": POISSON},
    ]
    return Scenario.model_validate(
        {"name": "test", "phases": phases, "traffic": traffic or [PLAIN], **rest}
    )


def sent(found: list[PhasePlan]) -> list[Turns]:
    return [turns for plan in found for turns in plan.sessions]


def requests(given: Scenario, **keys: str) -> list[Planned]:
    return [turn for turns in sent(plans(given, keys)) for turn in turns]


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_the_requests_are_the_same_however_many_processes_there_are(shards: int) -> None:
    given = scenario(EVERYTHING)
    whole = sent(plans(given, {}))
    parts = [sent(plans(given, {}, shard, shards)) for shard in range(shards)]
    assert all(parts)
    assert sorted((turns for part in parts for turns in part), key=lambda t: t[0].index) == whole


def test_the_same_seed_is_the_same_run_and_another_is_another() -> None:
    first = sent(plans(scenario(EVERYTHING), {}))
    assert first == sent(plans(scenario(EVERYTHING), {}))
    assert first != sent(plans(scenario(EVERYTHING, seed=2), {}))


def test_phases_follow_each_other() -> None:
    warm_up, main = plans(scenario(), {})
    assert (warm_up.start_s, warm_up.end_s, warm_up.counted) == (0, 5, False)
    assert (main.start_s, main.end_s, main.counted) == (5, 25, True)
    for plan in (warm_up, main):
        due = [turns[0].due_s or 0 for turns in plan.sessions]
        assert due == sorted(due)
        assert plan.start_s <= due[0] < due[-1] < plan.end_s


def test_indices_and_sessions_count_up_in_each_phase() -> None:
    for number, plan in enumerate(plans(scenario(EVERYTHING), {})):
        found = list(plan.sessions)
        turns = [turn for session in found for turn in session]
        first = number * PHASE_STRIDE
        assert [turn.index for turn in turns] == list(range(first, first + len(turns)))
        assert [session[0].session for session in found] == list(range(first, first + len(found)))
        assert all(turn.turn == n for session in found for n, turn in enumerate(session))


def test_later_turns_are_due_after_the_answer() -> None:
    found = [turns for turns in sent(plans(scenario(EVERYTHING), {})) if len(turns) > 1]
    for first, *rest in found:
        assert first.due_s is not None
        assert first.think_s == 0
        assert all(turn.due_s is None and turn.think_s > 0 for turn in rest)
        assert {(turn.model, turn.account, turn.system) for turn in rest} == {
            (first.model, first.account, first.system)
        }
        assert len({turn.prompt for turn in (first, *rest)}) == 1 + len(rest)


def test_traffic_of_a_phase_by_weight() -> None:
    traffic = [PLAIN | {"name": "x", "weight": 3}, PLAIN | {"name": "y"}, PLAIN | {"name": "z"}]
    arrivals = {"kind": "constant", "rate": 1000}
    phases = [
        {"name": "all", "seconds": 10, "arrivals": arrivals},
        {"name": "some", "seconds": 10, "arrivals": arrivals, "traffic": ["x", "z"]},
    ]
    every, some = plans(scenario(traffic, phases), {})
    seen = Counter(turns[0].traffic for turns in every.sessions)
    assert chi_square([seen["x"], seen["y"], seen["z"]], [6000, 2000, 2000]) < SIGMAS
    seen = Counter(turns[0].traffic for turns in some.sessions)
    assert chi_square([seen["x"], seen["z"]], [7500, 2500]) < SIGMAS
    assert set(seen) == {"x", "z"}


def test_models_accounts_and_custom_ids() -> None:
    phases = [{"name": "main", "seconds": 20, "arrivals": {"kind": "constant", "rate": 1000}}]
    one, two = (
        {key: value for key, value in each.items() if key != "images"} for each in EVERYTHING
    )
    found = requests(scenario([one | {"session": None}, two], phases))
    ones = [turn for turn in found if turn.traffic == "one"]
    accounts = Counter(turn.account for turn in ones)
    assert chi_square([accounts["x"], accounts["y"]], [len(ones) * 0.75, len(ones) * 0.25]) < SIGMAS
    ids = Counter(turn.model for turn in ones)
    total = sum(1 / n for n in range(1, 51))
    expected = [len(ones) / total / n for n in range(1, 51)]
    assert chi_square([ids[f"llama.{n:03d}"] for n in range(50)], expected) < SIGMAS
    twos = [turn for turn in found if turn.traffic == "two"]
    models = Counter(turn.model for turn in twos)
    assert chi_square([models["a"], models["b"]], [len(twos) / 3, len(twos) * 2 / 3]) < SIGMAS
    assert {turn.endpoint for turn in twos} == {"chat"}
    assert {turn.priority for turn in twos} == {3}
    assert twos[0].extra == {"top_p": 0.9}


def test_cancels_and_slow_readers_are_shares() -> None:
    phases = [{"name": "main", "seconds": 10, "arrivals": {"kind": "constant", "rate": 500}}]
    found = requests(scenario([EVERYTHING[0] | {"session": None}], phases))
    leaving = [turn for turn in found if turn.cancel_after_tokens is not None]
    assert chi_square([len(leaving), len(found) - len(leaving)], [2000, 3000]) < SIGMAS
    assert {turn.cancel_after_tokens for turn in leaving} == {3}
    assert all(turn.cancel_after_s for turn in leaving)
    slow = [turn for turn in found if turn.read_bytes_per_s is not None]
    assert chi_square([len(slow), len(found) - len(slow)], [2500, 2500]) < SIGMAS
    assert {turn.read_bytes_per_s for turn in slow} == {100}


def test_shared_prefixes() -> None:
    phases = [{"name": "main", "seconds": 10, "arrivals": {"kind": "constant", "rate": 500}}]
    found = requests(scenario([EVERYTHING[0] | {"session": None}], phases))
    seen = Counter(turn.system for turn in found)
    assert {len((system or "").split()) for system in seen} == {30}
    total = sum(1 / n for n in range(1, 6))
    counts = [count for _, count in seen.most_common()]
    assert chi_square(counts, [len(found) / total / n for n in range(1, 6)]) < SIGMAS


def test_images() -> None:
    found = [turn for turn in requests(scenario(EVERYTHING)) if turn.traffic == "two"]
    assert {len(turn.images) for turn in found} == {1, 2}
    urls = [url for turn in found for url in turn.images]
    assert len(urls) == len(set(urls))
    assert not any(turn.images for turn in requests(scenario()))


def test_keys_come_from_the_environment() -> None:
    accounts = [{"name": "own", "key_env": "OWN", "headers": {"x-team": "7"}}, {"name": "other"}]
    given = scenario([PLAIN | {"accounts": accounts}], target={"key_env": "TARGET"})
    found = requests(given, OWN="sk-own", TARGET="sk-target")
    assert {(turn.account, turn.key) for turn in found} == {
        ("own", "sk-own"),
        ("other", "sk-target"),
    }
    assert {turn.headers.get("x-team") for turn in found if turn.account == "own"} == {"7"}
    assert "sk-own" not in repr(found)
    assert {turn.key for turn in requests(scenario())} == {None}
    with pytest.raises(ScenarioError, match=r"accounts.own: the environment has no OWN; export"):
        plans(given, {})


def test_prompts_of_a_file_come_in_turn_in_all_processes(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"p{n}", "reference": f"r{n}"} for n in range(7)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    given = scenario(
        [{"name": "x", "models": {"a": 1}, "prompt": {"file": str(path)}, "session": {"turns": 3}}]
    )
    first, _ = plans(given, {})
    found = [turn for turns in first.sessions for turn in turns]
    assert [turn.prompt for turn in found[:9]] == [f"p{n % 7}" for n in range(9)]
    assert all(turn.reference == turn.prompt.replace("p", "r") for turn in found)
    parts = [list(plans(given, {}, shard, 2)[0].sessions) for shard in (0, 1)]
    again = sorted(
        (turn for part in parts for turns in part for turn in turns), key=lambda t: t.index
    )
    assert again == found


def test_a_closed_loop_has_no_end_and_no_times() -> None:
    arrivals = {"kind": "closed", "concurrency": 7}
    given = scenario([EVERYTHING[1]], [{"name": "main", "seconds": 5, "arrivals": arrivals}])
    whole = list(islice(plans(given, {})[0].sessions, 90))
    assert all(turn.due_s is None for turns in whole for turn in turns)
    parts = [plans(given, {}, shard, 3)[0] for shard in range(3)]
    assert [part.concurrency for part in parts] == [3, 2, 2]
    found = [turns for part in parts for turns in islice(part.sessions, 30)]
    assert sorted(found, key=lambda turns: turns[0].index) == whole


def test_a_process_too_many_for_a_closed_loop_has_nothing_to_do() -> None:
    arrivals = {"kind": "closed", "concurrency": 1}
    given = scenario(phases=[{"name": "main", "seconds": 5, "arrivals": arrivals}])
    idle = plans(given, {}, 1, 2)[0]
    assert idle.concurrency == 0
    assert list(idle.sessions) == []


def mooncake(tmp_path: Path, rows: list[dict[str, Any]]) -> Scenario:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    arrivals = {"kind": "trace", "format": "mooncake", "path": str(path)}
    return scenario(phases=[{"name": "main", "seconds": 50, "arrivals": arrivals}])


def test_hash_ids_of_a_trace_are_shared_beginnings(tmp_path: Path) -> None:
    given = mooncake(
        tmp_path,
        [
            {"timestamp": 0, "input_length": 1500, "output_length": 5, "hash_ids": [0, 7, 8]},
            {"timestamp": 1000, "input_length": 1100, "output_length": 6, "hash_ids": [0, 7, 8]},
            {"timestamp": 2500, "input_length": 1536, "output_length": 7, "hash_ids": [0, 9, 8]},
            {"timestamp": 2500, "input_length": 600, "output_length": 7, "hash_ids": [0]},
            {"timestamp": 2500, "input_length": 20, "output_length": 7},
        ],
    )
    found = requests(given)
    words = [turn.prompt.split() for turn in found]
    assert [len(each) for each in words] == [1500, 1100, 1536, 600, 20]
    assert [turn.max_tokens for turn in found] == [5, 6, 7, 7, 7]
    assert [turn.due_s for turn in found] == [0, 1, 2.5, 2.5, 2.5]
    # The last block of the second is not full; it begins like the full one.
    assert words[1] == words[0][:1100]
    assert words[2][:512] == words[0][:512]
    assert words[2][512:520] != words[0][512:520]
    assert words[2][1024:1500] == words[0][1024:]
    assert words[3][:512] == words[0][:512]
    assert words[3][512:520] != words[0][512:520]


def test_a_line_of_a_trace_that_cannot_be_read_ends_the_run(tmp_path: Path) -> None:
    good = [{"timestamp": at, "input_length": 1, "output_length": 1} for at in range(200)]
    given = mooncake(tmp_path, [*good, {"timestamp": 300}])
    with pytest.raises(ScenarioError, match=r"trace.jsonl:201: not a request"):
        requests(given)


def test_prompts_have_so_many_words() -> None:
    found = requests(scenario([PLAIN | {"prompt": {"tokens": 33}, "output": 9}]))
    assert {len(turn.prompt.split()) for turn in found} == {33}
    assert {turn.max_tokens for turn in found} == {9}
    assert len({turn.prompt for turn in found}) == len(found)


def test_hours_are_planned_in_little_memory() -> None:
    """A million sessions are not made before they are asked for."""
    arrivals = {"kind": "poisson", "rate": 1000}
    given = scenario(phases=[{"name": "soak", "seconds": 1e6, "arrivals": arrivals}])
    tracemalloc.start()
    try:
        (plan,) = plans(given, {})
        before, _ = tracemalloc.get_traced_memory()
        count = sum(1 for _ in islice(plan.sessions, 20_000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert before < 16 * 2**20
    assert after - before < 2**20


def test_the_schedule_is_what_the_plans_send() -> None:
    given = scenario(EVERYTHING)
    made = sources(given, {})
    for number, plan in enumerate(plans(given, {})):
        slots = [slot for _, slot in schedule(given, number, made)]
        for slot, turns in zip(slots, plan.sessions, strict=True):
            assert (slot.at_s, slot.turns) == (turns[0].due_s, len(turns))
