"""A whole run, from a scenario to its summary."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from loadtests.clock import Clock
from loadtests.measure.aggregate import Aggregate, Live
from loadtests.measure.ledger import Ledger, Usage
from loadtests.measure.scrape import Scraper, every_for
from loadtests.measure.summary import Mark, Summary
from loadtests.output.records import join as join_records
from loadtests.output.summary_file import write_summary
from loadtests.run.faults import run_faults
from loadtests.run.processes import Processes, Sent
from loadtests.run.shard import Shard
from loadtests.run.state import State, decode, encode, merge, pack
from loadtests.run.together import LEAD_S, Alone, NoMeeting, Together
from loadtests.scenarios.model import Scenario

SHOW_S = 0.5
# Beyond the time that a request may take: for the other shards to end.
LATE_S = 60.0


class Watcher(Protocol):
    """What shows a run while it goes on."""

    def began(self, scenario: Scenario) -> None:
        """The run begins now, or in a moment."""

    def show(self, at_s: float, live: Live, in_flight: int) -> None:
        """How it goes; twice a second."""

    def mark(self, mark: Mark) -> None:
        """A fault's command has ended."""

    def note(self, text: str) -> None:
        """Something that is worth a line."""

    def problem(self, text: str) -> None:
        """Something is missing beside the figures; the run goes on."""

    def stopping(self, outstanding: int) -> None:
        """It is being interrupted."""


class Conductor:
    """Runs one shard of a scenario: its processes, and on shard 0 its faults and scrapes."""

    def __init__(
        self,
        scenario: Scenario,
        keys: Mapping[str, str],
        watcher: Watcher,
        folder: Path,
        *,
        shard: Shard = Shard(),  # noqa: B008 - it is frozen
        together: Together = Alone(),  # noqa: B008 - it has no state
    ) -> None:
        """`keys`: the environment that API keys are read from. `folder` gets the records."""
        self._scenario = scenario
        self._keys = keys
        self._watcher = watcher
        self._folder = folder
        self._shard = shard
        self._together = together
        self._marks: list[Mark] = []
        self._clock = Clock(time.monotonic() + LEAD_S)
        self._scraper = self._make_scraper()
        self._ledger = self._make_ledger()
        self._notes: list[str] = []
        self.leads = False  # whether others hand their parts over to this shard

    async def run(self) -> list[State]:
        """Run it; return what it has measured and, of the leader, what others have handed over.

        Raises ProcessFailed if the processes cannot start, NoMeeting, and CannotMerge for what is
        no part of a run.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for part in self._parts():  # of a run that has died here
            part.unlink()
        self._watcher.note(f"starting {self._scenario.client.processes} processes")
        processes = await Processes.start(self._scenario, self._keys, self._shard, self._records)
        try:
            before = None if self._scraper.idle else await self._scraper.scrape()
            used_before = await self._used(None, 0)
            if self._shard.count > 1:
                self._watcher.note("ready; waiting for the other shards")
            meeting = await self._together.meet()
            for clock in meeting.clocks:
                self._watcher.note(str(clock))
            self._clock.start = meeting.start
            started_at = time.time() + meeting.start - time.monotonic()
            processes.go(meeting.start)
            self._watcher.began(self._scenario)
            async with self._beside(processes):
                sent = await processes.finish()
            for problem in sent.records_problems:
                self._missing(problem)
            # The service is asked what it has done when all shards' requests have ended.
            others = await self._others()
            after = None if self._scraper.idle else await self._scraper.settle()
            used_after = used_before and await self._used(used_before, admitted(sent, others))
        finally:
            await processes.end()
            self._join_records()
        own = pack(
            self._scenario,
            self._shard,
            sent.aggregate,
            started_at=started_at,
            seconds=sent.end_s,
            marks=self._marks,
            scrapes=self._scraper.scrapes(),
            before=before,
            after=after,
            used_before=used_before,
            used_after=used_after,
            notes=[*self._scraper.troubles(), *self._notes],
            problems=list(problems(sent)),
            clocks="; ".join(map(str, meeting.clocks)),
        )
        return [own, *others]

    async def _others(self) -> list[State]:
        if self._shard.count > 1:
            self._watcher.note("done; waiting for the other shards")
        parts = await self._together.parts(self._scenario.target.timeout_s + LATE_S)
        self.leads = parts is not None
        return [decode(part, "what another shard handed over") for part in parts or ()]

    @contextlib.asynccontextmanager
    async def _beside(self, processes: Processes) -> AsyncIterator[None]:
        """What goes on beside the requests. A signal ends the run: what was is still told."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        url, given = self._scenario.target.url, self._scenario.faults
        faults = asyncio.create_task(
            run_faults(given if self._shard.number == 0 else (), url, self._clock, self._mark, over)
        )

        def stop() -> None:
            self._watcher.stopping(processes.live()[1])
            processes.stop()
            faults.cancel()

        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, stop)
        tasks = [asyncio.create_task(self._show(processes))]
        if not self._scraper.idle:
            seconds = sum(phase.seconds for phase in self._scenario.phases)
            tasks.append(asyncio.create_task(self._scraper.run(every_for(seconds))))
        try:
            yield
            over.set()
            await asyncio.wait([faults])
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            for task in (*tasks, faults):
                task.cancel()
            failed = await asyncio.gather(*tasks, faults, return_exceptions=True)
        for each in failed:
            if isinstance(each, Exception):
                raise each

    async def _show(self, processes: Processes) -> None:
        while True:
            await asyncio.sleep(SHOW_S)
            self._watcher.show(self._clock.now(), *processes.live())
            for problem in processes.problems():
                self._missing(problem)

    def _missing(self, text: str) -> None:
        """Tell what is missing beside the figures, once."""
        if text not in self._notes:
            self._notes.append(text)
            self._watcher.problem(text)

    def _mark(self, mark: Mark) -> None:
        self._marks.append(mark)
        self._watcher.mark(mark)

    def _make_scraper(self) -> Scraper:
        target = self._scenario.target
        if self._shard.number != 0:
            return Scraper(())
        return Scraper(
            target.metrics,
            target.metrics_targets,
            key=self._keys.get(target.key_env, ""),
            clock=lambda: self._clock.now(),
            tell=self._watcher.problem,
        )

    # --- what the service charges ---

    def _make_ledger(self) -> Ledger | None:
        target = self._scenario.target
        if self._shard.number != 0 or target.usage is None:
            return None
        return Ledger(target.usage, self._keys.get(target.usage_key_env or target.key_env, ""))

    async def _used(self, before: Usage | None, requests: int) -> Usage | None:
        """Read the ledger; after the run, when the entries of so many requests are in it."""
        ledger = self._ledger
        if ledger is None:
            return None
        used = await (ledger.read() if before is None else ledger.settle(before, requests))
        if used is None:
            self._missing(f"the ledger could not be read: {ledger.trouble}")
        return used

    # --- records ---

    def _records(self, name: str) -> Path:
        return self._folder / f"records-{name}.jsonl"

    def _join_records(self) -> None:
        """Put the processes' records into one file, process by process."""
        join_records(self._parts(), self._folder / "records.jsonl")

    def _parts(self) -> list[Path]:
        found = self._folder.glob("records-*.jsonl")
        return sorted(found, key=lambda path: int(path.stem.split("-")[1]))


def admitted(sent: Sent, others: Sequence[State]) -> int:
    """Return how many requests of all shards the service has admitted for sure."""
    all_of_them = [sent.aggregate, *(Aggregate.from_bytes(each.aggregate) for each in others)]
    return sum(cell.ok + cell.cancelled for each in all_of_them for cell in each.cells.values())


def problems(sent: Sent) -> list[str]:
    """Return why the figures must not be used, beyond what the processes' own figures say."""
    found = list(sent.failures)
    if sent.limited:
        found.append(
            f"{sent.limited} requests failed for a limit of the client's machine (open files, "
            "ports or memory); raise it (`ulimit -n`), or use more machines"
        )
    if sent.unfinished:
        found.append(f"{sent.unfinished} requests were in flight when it was interrupted")
    return found


async def conduct(
    scenario: Scenario,
    keys: Mapping[str, str],
    watcher: Watcher,
    folder: Path,
    *,
    shard: Shard = Shard(),  # noqa: B008 - it is frozen
    together: Together = Alone(),  # noqa: B008 - it has no state
) -> Summary | None:
    """Run a scenario, or a shard of it; return the summary, and leave it in `folder`.

    Of several shards each leaves its state there. The one that the others hand theirs over to
    returns the summary of all, and the others None; where nobody does, `loadtest merge` makes it.
    Raises ProcessFailed, NoMeeting, CannotMerge and OSError.
    """
    conductor = Conductor(scenario, keys, watcher, folder, shard=shard, together=together)
    states = await conductor.run()
    if shard.count > 1:
        own = encode(states[0])
        (folder / f"shard-{shard.number}-of-{shard.count}.state").write_bytes(own)
        await together.hand_over(own)
    if len(states) < shard.count:
        if conductor.leads:
            missing = sorted(set(range(shard.count)) - {each.shard for each in states})
            raise NoMeeting(f"these shards have not handed over what they measured: {missing}")
        return None
    summary = merge(states)
    write_summary(summary, folder / "summary.json")
    return summary
