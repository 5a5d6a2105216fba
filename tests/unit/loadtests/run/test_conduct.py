from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.known.process import KnownProcess
from loadtests.measure.aggregate import Live
from loadtests.measure.scrape import Scraper, Snapshot
from loadtests.measure.summary import Mark, Summary
from loadtests.run.conduct import conduct
from loadtests.run.messages import Beat, Go, Job, Ready
from loadtests.run.processes import Processes, ProcessFailed, Sender
from loadtests.run.rendezvous import Follower, Leader
from loadtests.run.shard import Shard
from loadtests.run.state import CannotMerge, checksum, merge, read_state
from loadtests.run.together import Alone, NoMeeting
from loadtests.scenarios.arrivals import Phase, Poisson, Trace
from loadtests.scenarios.distributions import Fixed
from loadtests.scenarios.model import Client, Fault, Scenario, Target
from loadtests.scenarios.traffic import Traffic


class Notes:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.shown: list[Live] = []
        self.marks: list[Mark] = []
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.outstanding: int | None = None
        self.running = asyncio.Event()

    def began(self, scenario: Scenario) -> None:
        pass

    def show(self, at_s: float, live: Live, in_flight: int) -> None:
        self.shown.append(live)
        if sum(live.ended.values()) > 0:
            self.running.set()

    def mark(self, mark: Mark) -> None:
        self.marks.append(mark)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def stopping(self, outstanding: int) -> None:
        self.outstanding = outstanding


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KnownProcess]:
    process = KnownProcess.start(tmp_path / "log", first_s=0.02, gap_s=0.002)
    yield process
    process.kill()


@pytest.fixture
async def notes() -> Notes:
    return Notes()  # made within the loop


def scenario(url: str, processes: int = 2, seconds: float = 1.5, **more: Any) -> Scenario:
    return Scenario(
        name="test",
        seed=7,
        target=Target(url=url, timeout_s=10),
        phases=(Phase(name="steady", seconds=seconds, arrivals=Poisson(kind="poisson", rate=100)),),
        traffic=(Traffic(name="all", models={"m": 1}, output=Fixed(value=5)),),
        client=Client(processes=processes, max_lag_p99_ms=10_000),
        **more,
    )


def arrived(summary: Summary) -> tuple[int, int]:
    cut = summary.cuts[0]
    return cut.requests, cut.completion_tokens


async def test_processes_start_together_and_send_all_of_it(
    server: KnownProcess, notes: Notes, tmp_path: Path
) -> None:
    of = scenario(server.url, faults=(Fault(at_s=0.2, name="f", command="echo hi"),))
    summary = await conduct(of, {}, notes, tmp_path / "two")
    assert summary is not None
    alone = await conduct(scenario(server.url, processes=1), {}, notes, tmp_path / "one")
    assert alone is not None
    assert arrived(summary) == arrived(alone)
    assert (summary.invalid, summary.processes, alone.processes) == ([], 2, 1)
    assert [(mark.name, mark.output) for mark in summary.marks] == [("f", "hi\n")]
    assert notes.marks == summary.marks
    assert notes.shown
    # A later run in the same folder does not take over what an earlier one has left.
    (tmp_path / "one" / "records-7.jsonl").write_text("x\n")
    await conduct(scenario(server.url, processes=1, seconds=0.2), {}, notes, tmp_path / "one")
    assert b"x" not in (tmp_path / "one" / "records.jsonl").read_bytes().splitlines()
    records = (tmp_path / "two" / "records.jsonl").read_bytes().splitlines()
    assert len(records) == summary.cuts[0].requests
    left = {path.name for path in (tmp_path / "two").iterdir()}
    assert left == {"records.jsonl", "summary.json"}
    assert [json.loads(line)["metadata"]["worker_id"] for line in records] == sorted(
        json.loads(line)["metadata"]["worker_id"] for line in records
    )
    served = server.stop()
    assert len(served) >= summary.cuts[0].requests * 2
    written = Summary.model_validate_json((tmp_path / "two" / "summary.json").read_bytes())
    assert written == summary


async def test_shards_send_what_one_machine_would(
    server: KnownProcess, notes: Notes, tmp_path: Path
) -> None:
    of = scenario(server.url, processes=1)
    leader = Leader(Shard(0, 2), checksum(of))
    port = await leader.listen("127.0.0.1", 0)
    follower = Follower(Shard(1, 2), "127.0.0.1", port, checksum(of))
    whole, part = await asyncio.gather(
        *(
            conduct(of, {}, notes, tmp_path / str(n), shard=Shard(n, 2), together=together)
            for n, together in enumerate((leader, follower))
        )
    )
    await leader.close()
    await follower.close()
    assert part is None
    alone = await conduct(of, {}, notes, tmp_path / "alone")
    assert alone is not None
    states = [read_state(tmp_path / str(n) / f"shard-{n}-of-2.state") for n in (0, 1)]
    assert abs(states[0].started_at - states[1].started_at) < 0.05
    assert whole == merge(states) == merge(states[::-1])
    assert whole is not None
    assert whole.client["clocks"].startswith("the clock of shard 1 is")
    assert whole.client["clocks"] in notes.notes
    assert (whole.processes, whole.invalid) == (2, [])
    assert arrived(whole) == arrived(alone)
    with pytest.raises(CannotMerge, match=r"these are \[0\]"):
        merge(states[:1])
    with pytest.raises(CannotMerge, match=r"these are \[0, 0\]"):
        merge([states[0], states[0]])


class Leaderlike(Alone):
    """Asks the others for their parts; none comes."""

    def __init__(self, order: list[str]) -> None:
        self._order = order

    async def parts(self, wait_s: float) -> list[bytes] | None:
        self._order.append("all shards have ended")
        return []


async def test_the_service_is_asked_when_all_shards_have_ended_and_who_is_missing_is_told(
    server: KnownProcess, notes: Notes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    settle = Scraper.settle

    async def settled(scraper: Scraper) -> Snapshot:
        order.append("the service is asked")
        return await settle(scraper, every_s=0.01)

    monkeypatch.setattr(Scraper, "settle", settled)
    of = scenario(server.url, processes=1, seconds=0.3)
    page = {"metrics": (f"{server.url}/no-metrics",)}
    of = of.model_copy(update={"target": of.target.model_copy(update=page)})
    with pytest.raises(NoMeeting, match=r"have not handed over what they measured: \[1\]"):
        await conduct(of, {}, notes, tmp_path, shard=Shard(0, 2), together=Leaderlike(order))
    assert order == ["all shards have ended", "the service is asked"]
    assert read_state(tmp_path / "shard-0-of-2.state").shards == 2


async def test_what_is_missing_beside_the_figures_is_told(
    server: KnownProcess, notes: Notes, tmp_path: Path
) -> None:
    """Pages that cannot be read make no run invalid."""
    of = scenario(server.url, processes=1, seconds=0.3)
    missing = {"metrics": (f"{server.url}/no-metrics",), "usage": f"{server.url}/no-usage"}
    of = of.model_copy(update={"target": of.target.model_copy(update=missing)})
    summary = await conduct(of, {}, notes, tmp_path)
    assert summary is not None
    assert summary.invalid == []
    pages, ledger = summary.notes
    assert re.fullmatch(rf"{server.url}/no-metrics could not be read \d+ times, .* 404 .*", pages)
    assert ledger.startswith("the ledger could not be read: 404")
    assert notes.problems[0].startswith(f"{server.url}/no-metrics cannot be read: 404")
    assert notes.problems[1:] == [ledger]


async def test_a_full_disk_is_told_while_the_run_goes_on(
    server: KnownProcess, notes: Notes, tmp_path: Path
) -> None:
    of = scenario(server.url, processes=1, seconds=60)
    processes = await Processes.start(of, {}, Shard(), lambda _: Path("/dev/full"))
    processes.go(time.monotonic())
    running = asyncio.create_task(processes.finish())
    async with asyncio.timeout(20):
        while not processes.problems():
            await asyncio.sleep(0.05)
    processes.stop()
    problem = "records are missing: No space left on device"
    assert processes.problems() == [problem]
    assert (await running).records_problems == (problem,)
    await processes.end()


async def test_a_shard_leaves_its_state(server: KnownProcess, notes: Notes, tmp_path: Path) -> None:
    of = scenario(server.url, processes=1, seconds=0.5)
    assert await conduct(of, {}, notes, tmp_path, shard=Shard(1, 2)) is None
    state = read_state(tmp_path / "shard-1-of-2.state")
    assert (state.shard, state.shards) == (1, 2)
    (tmp_path / "other").write_text("x")
    with pytest.raises(CannotMerge, match="no state of a shard"):
        read_state(tmp_path / "other")


async def test_ctrl_c_keeps_the_figures_so_far(
    server: KnownProcess, notes: Notes, tmp_path: Path
) -> None:
    running = asyncio.create_task(conduct(scenario(server.url, seconds=60), {}, notes, tmp_path))
    await asyncio.wait_for(notes.running.wait(), 20)
    began = time.monotonic()
    os.kill(os.getpid(), signal.SIGINT)
    summary = await asyncio.wait_for(running, 20)
    assert time.monotonic() - began < 10
    assert summary is not None
    assert any("interrupted" in reason for reason in summary.invalid)
    assert 0 < summary.cuts[0].requests < 3000
    assert notes.outstanding is not None


async def test_a_process_that_dies_is_told_of(
    server: KnownProcess, notes: Notes, tmp_path: Path
) -> None:
    of = scenario(
        server.url,
        seconds=3,
        faults=(
            # Of the two, which are the children of this one's process.
            Fault(
                at_s=1,
                name="kill",
                command=f"kill -9 $(pgrep -P {os.getpid()} -f loadtests.run.child | head -1)",
            ),
        ),
    )
    summary = await conduct(of, {}, notes, tmp_path)
    assert summary is not None
    assert any("has ended with status -9" in reason for reason in summary.invalid)
    assert summary.cuts[0].requests > 0


async def test_a_scenario_that_cannot_be_sent_is_told_of_before_the_run(
    notes: Notes, tmp_path: Path
) -> None:
    with pytest.raises(ProcessFailed, match=r"(not known|resolution)"):
        await conduct(scenario("http://nowhere.invalid"), {}, notes, tmp_path)


async def test_a_trace_that_breaks_off_ends_the_run(
    server: KnownProcess, notes: Notes, tmp_path: Path
) -> None:
    """Nobody takes a part of a trace for the whole of it."""
    lines = [
        json.dumps({"timestamp": 0, "input_length": 3, "output_length": 2, "hash_ids": [0]})
        for _ in range(3)
    ]
    (tmp_path / "trace.jsonl").write_text("\n".join([*lines, "{broken"]) + "\n")
    trace = Trace(kind="trace", format="mooncake", path=str(tmp_path / "trace.jsonl"))
    of = scenario(server.url, processes=1).model_copy(
        update={"phases": (Phase(name="steady", seconds=1, arrivals=trace),)}
    )
    with pytest.raises(ProcessFailed, match=r"trace\.jsonl"):
        await conduct(of, {}, notes, tmp_path / "out")


async def test_the_processes_end_with_the_conductor(
    server: KnownProcess, notes: Notes, tmp_path: Path
) -> None:
    sender = await Sender.start("0")
    of = scenario(server.url, processes=1, seconds=60)
    sender.channel.send(Job(of.model_dump_json().encode(), {}, 0, 1, "0", None))
    assert isinstance(await sender.receive(), Ready)
    sender.channel.send(Go(time.monotonic()))
    assert isinstance(await sender.receive(), Beat)
    sender.channel.close()
    async with asyncio.timeout(5):
        assert await sender._process.wait() == 0
