"""Reads the service's Prometheus pages before, during and after a run.

Counters are summed up as they grow (`Snapshot.counters`), so that one whose process was replaced
loses only what it counted after its last scrape. Which processes lost something is told.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.parse import urlsplit

from loadtests.measure.pages import Fetch, get, key_headers, targets_of, why
from loadtests.measure.prometheus import Labels, Sample, is_counter, parse
from loadtests.measure.summary import Scrape

NAMES = (
    "serving_*",
    "vllm:*",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
)
_STARTED = "process_start_time_seconds"
# A request counts at a router and at an engine.
_AT_ROUTERS = ("serving_requests_in_flight",)
_AT_ENGINES = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_SERIES = 3000  # that are kept with their samples
_SAMPLES = 600  # of each

Series = tuple[str, str, Labels]  # target, name, labels


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The service's counts at a time, since the first scrape."""

    at_s: float
    counters: Mapping[Series, float]
    running: float = 0.0  # requests that the service works on
    # Targets of which counts are missing, and why.
    lost: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Trouble:
    """A page that could not be read: for the first time then, and so many times."""

    at_s: float
    why: str
    times: int = 0


@dataclass(slots=True)
class _Process:
    """The process behind a target."""

    started: float | None  # Unix time
    values: dict[tuple[str, Labels], float] = field(default_factory=dict)
    seen: set[float] = field(default_factory=set)


class Scraper:
    """`pages` and the targets that the `http_sd` page `listed` names. `key` is shown to that page
    only, which is the service's own; `token` to the targets."""

    def __init__(
        self,
        pages: Sequence[str],
        listed: str | None = None,
        *,
        key: str = "",
        token: str = "",
        names: Sequence[str] = NAMES,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`clock` tells the seconds since the run's start. `tell` is told of a page that cannot be
        read, the first time."""
        self._pages, self._listed = tuple(pages), listed
        self._key = key_headers(key)
        self._token = {"authorization": f"Bearer {token}"} if token else {}
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
        self._fetch, self._clock, self._wall, self._tell = fetch or get, clock, wall, tell
        self._began: float | None = None
        self._targets: tuple[str, ...] = ()
        self._processes: dict[str, _Process] = {}
        self._counters: dict[Series, float] = {}
        self._samples: dict[Series, list[tuple[float, float]]] = {}
        self._lost: dict[str, str] = {}
        self.failures: dict[str, str] = {}  # of pages that cannot be read now
        self._troubles: dict[str, Trouble] = {}

    @property
    def idle(self) -> bool:
        """True if there is nothing to read."""
        return not self._pages and self._listed is None

    async def run(self, every_s: float = 5.0) -> None:
        """Scrape until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.scrape()

    async def scrape(self) -> Snapshot:
        """Read all pages once. What cannot be read is in `failures`."""
        first = self._began is None
        if self._began is None:
            self._began = self._wall()
        await self._list()
        self.failures = {page: why for page, why in self.failures.items() if page == self._listed}
        read = await asyncio.gather(*(self._page(target) for target in self._targets))
        at_s = self._clock()
        found: list[Sample] = []
        for target, samples in zip(self._targets, read, strict=True):
            if samples is not None:
                found += samples
                self._take(_short(target), samples, at_s, first)
        running = max(
            sum(sample.value for sample in found if sample.name in names)
            for names in (_AT_ROUTERS, _AT_ENGINES)
        )
        return Snapshot(at_s, dict(self._counters), running, self._missing())

    async def settle(self, timeout_s: float = 10.0, every_s: float = 0.5) -> Snapshot:
        """Scrape until the service works on nothing and two scrapes count the same: it ends a
        request that its client has left a moment later."""
        until = self._clock() + timeout_s
        last = await self.scrape()
        while True:
            await asyncio.sleep(every_s)
            now = await self.scrape()
            if (not now.running and _requests(now) == _requests(last)) or self._clock() >= until:
                return now
            last = now

    def troubles(self) -> list[str]:
        """Which pages could not be read at times, in words."""
        return [
            f"{page} could not be read {found.times} times, for the first time after "
            f"{max(found.at_s, 0):.0f} s: {found.why}"
            for page, found in self._troubles.items()
        ]

    def scrapes(self) -> list[Scrape]:
        """Every series that was ever other than 0, with its samples."""
        return [
            Scrape(target=target, name=name, labels=dict(labels), samples=_thinned(samples))
            for (target, name, labels), samples in sorted(self._samples.items())
            if any(value for _, value in samples)
        ]

    # --- reading ---

    async def _list(self) -> None:
        listed: list[str] = []
        if self._listed is not None:
            try:
                body = await asyncio.to_thread(self._fetch, self._listed, self._key)
                listed = targets_of(body)
                self.failures.pop(self._listed, None)
            except (OSError, HTTPException, ValueError) as error:
                self._failed(self._listed, error)
                # Those of the last time: that the list is gone does not end them.
                listed = [target for target in self._targets if target not in self._pages]
        self._targets = tuple(dict.fromkeys((*self._pages, *listed)))

    async def _page(self, target: str) -> list[Sample] | None:
        try:
            return await asyncio.to_thread(self._read, target)
        except (OSError, HTTPException, ValueError) as error:
            self._failed(target, error)
            return None

    def _failed(self, page: str, error: Exception) -> None:
        self.failures[page] = why(error)
        trouble = self._troubles.get(page)
        if trouble is None:
            trouble = self._troubles[page] = Trouble(self._clock(), self.failures[page])
            self._tell(f"{page} cannot be read: {trouble.why}")
        trouble.times += 1

    def _read(self, target: str) -> list[Sample]:
        page = self._fetch(target, self._token).decode("utf-8", "replace")
        return [one for one in parse(page, self._wanted) if math.isfinite(one.value)]

    def _wanted(self, name: str) -> bool:
        if name in self._exact or name == _STARTED:
            return True
        return name.startswith(self._prefixes) and not name.endswith(("_bucket", "_created"))

    # --- keeping ---

    def _take(self, target: str, samples: list[Sample], at_s: float, first: bool) -> None:
        started = next((one.value for one in samples if one.name == _STARTED), None)
        process = self._processes.get(target)
        began = self._began or 0.0
        if process is None:
            process = self._processes[target] = _Process(started)
            # What a process counted before the run is not the run's.
            before = first or (started is not None and started < began - 1)
            if before and not first:
                self._lost[target] = f"it was read for the first time {at_s:.0f} s into the run"
            process.values = {
                (one.name, one.labels): one.value if before else 0.0
                for one in samples
                if is_counter(one.name)
            }
        elif started is not None and started != process.started:
            self._replaced(target, process, started)
        if started is not None:
            process.seen.add(started)
        for one in samples:
            if one.name == _STARTED:
                continue
            series = (target, one.name, one.labels)
            if is_counter(one.name):
                self._count(target, process, one)
            kept = self._samples.get(series)
            if kept is None:
                if len(self._samples) >= _SERIES:
                    continue
                kept = self._samples[series] = []
            kept.append((round(at_s, 3), one.value))
            if len(kept) > 2 * _SAMPLES:
                del kept[1:-1:2]

    def _replaced(self, target: str, process: _Process, started: float) -> None:
        """Another process answers there."""
        if started in process.seen:
            self._lost[target] = (
                "several processes answer at this address in turn, so their counts are mixed up; "
                "name each of them, or the page that lists them"
            )
        else:
            self._lost.setdefault(target, "its process was replaced during the run")
        process.started = started
        process.values = {}

    def _count(self, target: str, process: _Process, sample: Sample) -> None:
        key = (sample.name, sample.labels)
        last = process.values.get(key, 0.0)
        if sample.value < last:
            self._lost.setdefault(target, "its counters began anew during the run")
            last = 0.0
        process.values[key] = sample.value
        series = (target, *key)
        self._counters[series] = self._counters.get(series, 0.0) + sample.value - last

    def _missing(self) -> dict[str, str]:
        """Why counts of a target are missing."""
        now = {_short(target) for target in self._targets if target not in self.failures}
        gone = {
            target: "it answered at first and does not any more"
            for target in self._processes
            if target not in now
        }
        return {**gone, **self._lost}


def every_for(seconds: float) -> float:
    """How often to scrape in a run of this length, in seconds."""
    return max(2.0, seconds / _SAMPLES)


def _short(target: str) -> str:
    parts = urlsplit(target)
    return parts.netloc + ("" if parts.path == "/metrics" else parts.path)


def _requests(snapshot: Snapshot) -> dict[Series, float]:
    """The counts that stand still once the service works on nothing: not those of the pages that
    are read here."""
    return {
        (target, name, labels): value
        for (target, name, labels), value in snapshot.counters.items()
        if name.endswith(("requests_total", "tokens_total", "request_success_total"))
        and not dict(labels).get("endpoint", "").startswith("/metrics")
    }


def _thinned(samples: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without those in the middle of a level stretch."""
    return [
        sample
        for place, sample in enumerate(samples)
        if place in (0, len(samples) - 1)
        or not samples[place - 1][1] == sample[1] == samples[place + 1][1]
    ]
