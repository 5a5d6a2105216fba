"""What the ledger of a router has kept, where it is written to and in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from starlette.types import Message, Receive, Scope, Send

from serving.accounts.ledger import segment
from serving.accounts.ledger.ledger import JournalLedger, Ledger, StoreLedger
from serving.store.engine import Store
from serving.store.usage import Span, Usage
from tests.gateway.conftest import KEY, Site

# A piece of an answer, and request ID and tokens of all entries that were durable before it left.
Sent = tuple[str, list[tuple[str, int, int]]]


class Kept:
    """A router with a ledger, as an administrator reads it, and the ledger itself."""

    def __init__(self, site: Site, key: str, store: Store) -> None:
        self.site = site
        self.headers = {"x-api-key": key}
        self._store = store

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.site.client.get(path, headers=self.headers, params=query)

    async def entries(self) -> list[dict[str, Any]]:
        """Everything that has reached the store."""
        if isinstance(self.ledger, JournalLedger):
            await self.ledger._shipper.ship_all()  # type: ignore[union-attr]
        answer = await self.get("/v4/usage/entries")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        return found

    @property
    def ledger(self) -> Ledger:
        assert self.site.router.books.ledger is not None
        return self.site.router.books.ledger

    @property
    def unwritten(self) -> float:
        """Entries in memory alone."""
        name = "serving_ledger_entries_unwritten"
        found = self.site.metrics.registry.get_sample_value(name)
        assert found is not None
        return found

    @property
    def sink(self) -> Any:
        """What takes entries to the store."""
        if isinstance(self.ledger, JournalLedger):
            return self.ledger._shipper._sink  # type: ignore[union-attr]
        assert isinstance(self.ledger, StoreLedger)
        return self.ledger._sink

    async def durable(self) -> list[tuple[str, int, int]]:
        """Request ID and tokens of all that a crash would leave: what is in the journal, not where
        it is shipped to; or else in the store, as others see it."""
        if isinstance(self.ledger, JournalLedger):
            folder = self.ledger._journal.folder  # type: ignore[union-attr]
            kept = [entry for _, entry in segment.entries(folder)]
            return [(e.request_id, e.prompt_tokens, e.completion_tokens) for e in kept]
        names = ("request_id", "prompt_tokens", "completion_tokens")
        rows = await Usage(self._store).entries(span())
        return [tuple(row[name] for name in names) for row in rows]  # type: ignore[misc]

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[tuple[httpx.AsyncClient, list[Sent]]]:
        """A client, and what has been sent to it: each piece with what was durable before."""
        sent: list[Sent] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def watch(message: Message) -> None:
                if message.get("body"):
                    sent.append((message["body"].decode(), await self.durable()))
                await send(message)

            await self.site.router.pipeline(scope, receive, watch)

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://gateway", headers=KEY
        ) as client:
            yield client, sent


async def stored(url: str) -> list[dict[str, Any]]:
    """The entries of a store whose router has ended."""
    store = Store(url)
    try:
        return await Usage(store).entries(span())
    finally:
        await store.close()


def span() -> Span:
    """Yesterday, today and tomorrow."""
    now = datetime.now(UTC)
    return Span(now - timedelta(days=1), now + timedelta(days=1))
