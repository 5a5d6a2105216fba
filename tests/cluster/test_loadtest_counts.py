"""The load generator's counts against routers in front of real vLLM engines, to the token."""

from __future__ import annotations

from loadtests.measure.scrape import Scraper
from tests.counting import counted, findings
from tests.live import BASE, HAIKU, INSTRUCT, KEY, PIRATE, Server

TRAFFIC = (
    {"name": "streamed", "models": {BASE: 1, PIRATE: 1, HAIKU: 1}, "output": 16},
    {"name": "whole", "models": {BASE: 1}, "output": 16, "stream": False},
    {"name": "completions", "endpoint": "completions", "models": {BASE: 1}, "output": 16},
    {"name": "chat", "endpoint": "chat", "models": {INSTRUCT: 1}, "output": 16},
    {
        "name": "leaving",
        "endpoint": "completions",
        "models": {BASE: 1},
        "output": 64,
        "ignore_eos": True,
        "cancel": {"share": 1, "after_tokens": 3},
    },
    {"name": "unknown", "models": {"no-such-model": 1}, "output": 4},
)


async def test_to_the_token(live: Server) -> None:
    scraper = Scraper((), f"{live.url}/metrics/targets", key=KEY)
    counts = await counted(live.url, KEY, scraper, *TRAFFIC, rate=8, seconds=6)
    assert findings(counts) == {}
    assert counts["requests"].source == "metrics of the routers"
    assert counts["requests ok"].client > 0
    assert counts["requests cancelled"].client > 0
    assert counts["requests failed"].client == counts["requests failed"].server > 0
    prompt, completion = counts["prompt tokens"], counts["completion tokens"]
    assert 0 < prompt.client <= prompt.server
    assert 0 < completion.client <= completion.server
    # vLLM's own pages were read beside the routers'.
    names = {scrape.name for scrape in scraper.scrapes()}
    assert "vllm:generation_tokens_total" in names
    assert "process_resident_memory_bytes" in names
