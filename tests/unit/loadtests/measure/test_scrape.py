"""Scraping pages that change as a service's do: replicas come, die and are replaced."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator, Mapping

import pytest

from loadtests.measure.pages import get, targets_of
from loadtests.measure.scrape import Scraper, Snapshot, every_for


class Service:
    """Pages by URL, and what was asked with which headers."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.now = 0.0

    def page(self, host: str, counted: float, started: float = 100.0, more: str = "") -> None:
        self.pages[f"http://{host}/metrics"] = (
            f"process_start_time_seconds {started}\n"
            f'serving_requests_total{{model="m",outcome="ok"}} {counted}\n'
            f"process_resident_memory_bytes 5000\npython_info 1\n{more}"
        )

    def list(self, *hosts: str) -> None:
        body = [{"targets": [host], "labels": {"job": "router"}} for host in hosts]
        self.pages["http://service/metrics/targets"] = json.dumps(body)

    def fetch(self, url: str, headers: Mapping[str, str]) -> bytes:
        self.asked.append((url, headers))
        if url not in self.pages:
            raise ConnectionRefusedError("refused")
        return self.pages[url].encode()

    def scraper(self, *pages: str, listed: bool = False, **options: str) -> Scraper:
        return Scraper(
            pages,
            "http://service/metrics/targets" if listed else None,
            fetch=self.fetch,
            clock=lambda: self.now,
            wall=lambda: 1000.0 + self.now,
            **options,  # type: ignore[arg-type]
        )


def counted(snapshot: Snapshot) -> float:
    return sum(
        v for (_, name, _), v in snapshot.counters.items() if name == "serving_requests_total"
    )


PAGE = "http://a:1/metrics"


async def test_counts_are_those_of_the_run() -> None:
    service = Service()
    scraper = service.scraper(PAGE)
    service.page("a:1", 50)
    assert counted(await scraper.scrape()) == 0
    service.page("a:1", 57, more='serving_requests_total{model="new",outcome="ok"} 2\n')
    snapshot = await scraper.scrape()
    assert counted(snapshot) == 9
    assert snapshot.lost == {}


async def test_a_process_that_is_replaced_loses_what_came_after_its_last_scrape() -> None:
    service = Service()
    scraper = service.scraper(PAGE)
    service.page("a:1", 50)
    await scraper.scrape()
    service.page("a:1", 60)
    await scraper.scrape()
    service.page("a:1", 70, started=1001)  # more than before: only the start time tells
    snapshot = await scraper.scrape()
    assert counted(snapshot) == 80
    assert snapshot.lost == {"a:1": "its process was replaced during the run"}


async def test_counters_that_begin_anew_without_a_start_time() -> None:
    service = Service()
    scraper = service.scraper(PAGE)
    for count in (50, 60, 4):
        service.pages[PAGE] = f"serving_requests_total {count}\n"
        snapshot = await scraper.scrape()
    assert counted(snapshot) == 14
    assert "began anew" in snapshot.lost["a:1"]


async def test_several_processes_at_one_address_are_told() -> None:
    service = Service()
    scraper = service.scraper(PAGE)
    for count, started in ((50, 1), (90, 2), (51, 1)):
        service.page("a:1", count, started)
        snapshot = await scraper.scrape()
    assert "several processes" in snapshot.lost["a:1"]


async def test_replicas_come_and_go() -> None:
    service = Service()
    scraper = service.scraper(listed=True)
    service.list("a:1", "b:1")
    service.page("a:1", 10)
    service.page("b:1", 20)
    await scraper.scrape()
    service.now = 5
    del service.pages["http://b:1/metrics"]
    service.list("a:1", "c:1", "d:1")
    service.page("c:1", 7, started=1003)  # began in the run: all its counts are the run's
    service.page("d:1", 900, started=20)  # was there before and is listed only now
    snapshot = await scraper.scrape()
    assert counted(snapshot) == 7
    assert snapshot.lost == {
        "b:1": "it answered at first and does not any more",
        "d:1": "it was read for the first time 5 s into the run",
    }
    service.page("d:1", 903, started=20)
    assert counted(await scraper.scrape()) == 10


async def test_a_list_that_cannot_be_read_ends_no_target() -> None:
    service = Service()
    scraper = service.scraper(listed=True)
    service.list("a:1")
    service.page("a:1", 10)
    await scraper.scrape()
    service.page("a:1", 15)
    del service.pages["http://service/metrics/targets"]
    assert counted(await scraper.scrape()) == 5
    assert scraper.failures == {"http://service/metrics/targets": "refused"}
    service.list("a:1")
    await scraper.scrape()
    assert scraper.failures == {}


async def test_the_key_is_for_the_service_and_the_token_for_its_pages() -> None:
    service = Service()
    service.list("a:1")
    service.page("a:1", 1)
    await service.scraper(listed=True, key="sk-secret", token="metrics").scrape()
    (_, to_list), (_, to_page) = service.asked
    assert to_list == {"authorization": "Bearer sk-secret", "x-api-key": "sk-secret"}
    assert to_page == {"authorization": "Bearer metrics"}


async def test_what_is_kept() -> None:
    service = Service()
    scraper = service.scraper(PAGE)
    for n, count in enumerate((1, 1, 1, 1, 5)):
        service.now = n
        service.page(
            "a:1",
            count,
            more='serving_request_seconds_bucket{le="1"} 4\nserving_request_seconds_sum 9\n'
            "serving_request_seconds_created 4\nvllm:idle 0\nvllm:bad NaN\nother_total 4\n",
        )
        await scraper.scrape()
    kept = {scrape.name: scrape.samples for scrape in scraper.scrapes()}
    assert set(kept) == {
        "serving_requests_total",
        "serving_request_seconds_sum",
        "process_resident_memory_bytes",
    }
    assert kept["serving_requests_total"] == [(0, 1), (3, 1), (4, 5)]


async def test_samples_stay_bounded() -> None:
    service = Service()
    scraper = service.scraper(PAGE)
    for n in range(2500):
        service.now = n
        service.pages[PAGE] = f"process_resident_memory_bytes {n + 1}\n"
        await scraper.scrape()
    (scrape,) = scraper.scrapes()
    assert len(scrape.samples) <= 1200
    assert scrape.samples[0] == (0, 1)
    assert scrape.samples[-1] == (2499, 2500)


async def test_settling_waits_for_what_runs() -> None:
    service = Service()
    scraper = service.scraper(PAGE)
    service.page("a:1", 1, more="serving_requests_in_flight 2\n")
    settling = asyncio.create_task(scraper.settle(every_s=0.01))
    await asyncio.sleep(0.1)
    assert not settling.done()
    service.page("a:1", 3, more="serving_requests_in_flight 0\n")
    snapshot = await asyncio.wait_for(settling, 10)
    assert counted(snapshot) == 2
    assert snapshot.running == 0


async def test_settling_does_not_wait_for_itself() -> None:
    """A page that counts how often it was read never counts the same twice."""
    service = Service()
    reads = [0]

    def fetch(url: str, headers: Mapping[str, str]) -> bytes:
        reads[0] += 1
        page = f'serving_requests_total{{endpoint="/metrics",outcome="ok"}} {reads[0]}\n'
        return page.encode()

    scraper = Scraper((PAGE,), fetch=fetch, clock=lambda: service.now)
    await scraper.settle(every_s=0.01)  # its clock stands still: it would wait for ever
    assert reads[0] == 2


async def test_settling_ends() -> None:
    service = Service()
    scraper = service.scraper(PAGE)
    service.page("a:1", 1, more="serving_requests_in_flight 2\n")
    settling = asyncio.create_task(scraper.settle(timeout_s=10, every_s=0.01))
    await asyncio.sleep(0.05)
    service.now = 11
    assert (await asyncio.wait_for(settling, 10)).running == 2


@pytest.mark.parametrize("body", [b"{", b'{"a": 1}', b'[{"labels": {}}]', b"[3]"])
def test_what_is_no_list_of_targets(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        targets_of(body)


def test_targets_may_name_scheme_and_path() -> None:
    labels = {"__scheme__": "https", "__metrics_path__": "/m"}
    body = json.dumps([{"targets": ["a:1", "b:2"], "labels": labels}, {"targets": ["c:3"]}])
    found = targets_of(body.encode())
    assert found == ["https://a:1/m", "https://b:2/m", "http://c:3/metrics"]


def test_how_often() -> None:
    assert every_for(60) == 2
    assert every_for(36000) == 60


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/away":
            self.send_response(302)
            self.send_header("location", "/metrics")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"key {self.headers['x-api-key']}".encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetching(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert get(f"{url}/metrics", {"x-api-key": "k"}) == b"key k"
    with pytest.raises(OSError, match="302"):  # a key does not go where the page points
        get(f"{url}/away", {"x-api-key": "k"})
    with pytest.raises(ValueError, match="no http: or https: URL"):
        get("file:///etc/passwd", {})
