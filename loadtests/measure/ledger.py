"""What the service's ledger says was used: `GET /v4/usage` (docs/accounts.md) before and after a
run. The difference is a second source beside the metrics, which charges by the model that was asked
for, by account, and outlives whatever is killed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode

from loadtests.measure.pages import Fetch, get, key_headers, why
from loadtests.measure.record import Outcome
from loadtests.measure.server import ServerCounts

_HOUR_S = 3600
# The finest first: a ledger refuses more rows than it can write at once.
_GROUPS = (("model", "account", "outcome"), ("outcome",))
_NEVER_ADMITTED = "the ledger has no requests that were never admitted"


class Sums(NamedTuple):
    """Of some requests."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unknown: int = 0  # requests whose tokens nobody knows

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: Sums) -> Sums:
        """What is more in this."""
        return Sums(*(a - b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums by model, account and outcome since an hour before the run; `coarse`: by outcome alone,
    with empty names."""

    rows: Mapping[tuple[str, str, str], Sums] = field(default_factory=dict)
    coarse: bool = False

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(sums.requests for sums in self.rows.values())

    def without_names(self) -> Usage:
        """The same, by outcome alone."""
        rows: dict[tuple[str, str, str], Sums] = {}
        for (_, _, outcome), sums in self.rows.items():
            rows["", "", outcome] = rows.get(("", "", outcome), Sums()).plus(sums)
        return Usage(rows, coarse=True)


class Ledger:
    """The ledger at `url`, as `key` may see it: all of it, its account's, or its own."""

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        fetch: Fetch = get,
        wall: Callable[[], float] = time.time,
    ) -> None:
        # Sums are by whole hours of the service's clock.
        since = datetime.fromtimestamp((wall() // _HOUR_S - 1) * _HOUR_S, UTC)
        self._url = f"{url}{'&' if '?' in url else '?'}" + urlencode(
            {"start_date": since.isoformat()}
        )
        self._headers, self._fetch = key_headers(key), fetch
        self.trouble: str | None = None  # why it could not be read, the last time

    async def read(self) -> Usage | None:
        """Read it; None if it cannot be read, which is in `trouble` then."""
        try:
            usage = await asyncio.to_thread(self._read)
        except (OSError, HTTPException, ValueError) as error:
            self.trouble = why(error)
            return None
        self.trouble = None
        return usage

    async def settle(
        self,
        before: Usage,
        requests: int,
        *,
        quiet_s: float = 2.0,
        timeout_s: float = 20.0,
        every_s: float = 0.25,
    ) -> Usage | None:
        """Read it until it has so many requests more than before, and has stood still for
        `quiet_s`: entries come to it once a second or so, after their requests."""
        changed = began = time.monotonic()
        last: Usage | None = None
        while True:
            used, now = await self.read(), time.monotonic()
            if used != last:
                last, changed = used, now
            whole = used is not None and used.requests - before.requests >= requests
            if (whole and now - changed >= quiet_s) or now - began >= timeout_s:
                return used
            await asyncio.sleep(every_s)

    def _read(self) -> Usage:
        for names in _GROUPS[:-1]:
            try:
                return self._grouped(names)
            except HTTPError as error:
                if error.code not in (400, 422):
                    raise
        return self._grouped(_GROUPS[-1])

    def _grouped(self, names: tuple[str, ...]) -> Usage:
        url = f"{self._url}&{urlencode({'group_by': ','.join(names)})}"
        found = json.loads(self._fetch(url, self._headers))
        rows: dict[tuple[str, str, str], Sums] = {}
        try:
            for item in found["items"]:
                row = item.get("model") or "", item.get("account") or "", str(item["outcome"])
                rows[row] = Sums(
                    int(item["requests"]),
                    int(item["prompt_tokens"]),
                    int(item["completion_tokens"]),
                    int(item["usage_unknown"]),
                )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{self._url} is no page of usage") from error
        return Usage(rows, coarse=len(names) == 1)


def from_ledger(before: Usage, after: Usage) -> ServerCounts:
    """What the ledger has counted between two times."""
    counts = ServerCounts("the ledger", counts_refused=False, uncounted=_NEVER_ADMITTED)
    if before.coarse or after.coarse:
        before, after = before.without_names(), after.without_names()
    for row, sums in after.rows.items():
        model, account, outcome = row
        grown = sums.minus(before.rows.get(row, Sums()))
        counts.outcomes[Outcome(outcome)] += grown.requests
        counts.without_usage += grown.unknown
        for name, tally in ((model, counts.models), (account, counts.accounts)):
            tally.add(name, grown.requests, grown.prompt_tokens, grown.completion_tokens)
    return counts
