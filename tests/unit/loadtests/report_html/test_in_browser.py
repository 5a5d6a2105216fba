"""The report in a real browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from loadtests.report_html import render
from tests.unit.loadtests.browser import Page, browser, installed
from tests.unit.loadtests.simulated import HOSTILE, showcase

BINARY = installed()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(BINARY is None, reason="no Chromium here (Debian: apt install chromium)"),
]

PLOTS = """[...document.querySelectorAll('.plot svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  return {name: svg.querySelector('title').textContent, width: box.width, height: box.height,
          lines: [...svg.querySelectorAll('path.series')].map(line => line.getTotalLength())};
})"""
COLOURS = """(() => { const style = getComputedStyle(document.querySelector('section'));
  return [style.color, style.backgroundColor]; })()"""
WIDEST = "document.documentElement.scrollWidth"
STRANGE = "document.querySelectorAll('img, iframe, object, [onload], [onerror]').length"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """One browser for all: to start it takes seconds."""
    assert BINARY
    async with browser(BINARY, tmp_path_factory.mktemp("profile")) as page:
        yield page


async def opened(page: Page, tmp_path: Path, hostile: bool) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(showcase(hostile)), encoding="utf-8")
    await page.show(1280, dark=False)
    await page.open(file)
    assert page.complaints == []
    assert page.requests == [file.as_uri()], "it asked for nothing else"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def report(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A report that is open in it."""
    await opened(page, tmp_path_factory.mktemp("report"), False)
    return page


async def test_plots_are_there_and_have_a_size(report: Page) -> None:
    for width, dark in ((1280, False), (1280, True), (420, True)):
        await report.show(width, dark)
        await check_plots(report, width, dark)


async def check_plots(page: Page, width: int, dark: bool) -> None:
    plots: list[dict[str, Any]] = await page.run(PLOTS)
    names = {plot["name"] for plot in plots}
    assert names >= {
        "Requests per second",
        "In flight",
        "Time to the first token, from due",
        "Time to the first token: percentiles",
        "vllm:num_requests_waiting",
    }
    folded = "serving_requests_total"
    for plot in (plot for plot in plots if plot["name"] != folded):
        assert plot["width"] > 300, plot
        assert plot["height"] > 80, plot
        assert max(plot["lines"]) > 100, plot
    assert await page.run(WIDEST) <= width, "nothing is wider than the page"
    ink, paper = await page.run(COLOURS)
    assert (brightness(ink) > brightness(paper)) is dark
    assert page.complaints == []


async def pointed_at(page: Page) -> str:
    """What the first plot tells of its middle. A busy machine lays a page out late, so that the
    pointer comes down beside it; then it is put there again."""
    for _ in range(50):
        x, y = await page.run(
            "(() => { const svg = document.querySelector('.plot svg'); svg.scrollIntoView();"
            "const box = svg.getBoundingClientRect();"
            "return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        await page.move(x, y)
        first = "document.querySelector('.plot svg').closest('figure').querySelector('.tip')"
        if tip := await page.run(f"{first}?.checkVisibility() ? {first}.innerText : ''"):
            return str(tip)
        await asyncio.sleep(0.1)
    raise AssertionError("the first plot tells nothing")


async def test_the_pointer_and_the_keys_show_the_figures(report: Page) -> None:
    await report.show(1280, dark=False)
    tip = await pointed_at(report)
    assert tip.startswith("at 1:3"), "the middle of a run of 3:20"
    assert [word in tip for word in ("due", "sent", "ended")] == [True] * 3
    moved = await report.run(
        "(() => { const svg = document.querySelectorAll('.plot svg')[1]; svg.focus();"
        "for (const key of ['ArrowRight', 'ArrowRight', 'ArrowRight', 'ArrowLeft'])"
        "  svg.dispatchEvent(new KeyboardEvent('keydown', {key}));"
        "return svg.closest('figure').querySelector('.tip').innerText; })()"
    )
    assert moved.startswith("at 0:01")
    assert report.complaints == []


async def test_a_click_sorts_a_table_by_its_figures(report: Page) -> None:
    await report.show(1280, dark=False)
    column = (
        "(() => { const table = document.querySelector('#cuts table.sorts');"
        "const head = [...table.tHead.rows[0].cells].find(c => c.textContent == 'TTFT p99');"
        "head.querySelector('button').click();"
        "return [...table.tBodies[0].rows].map(r => Number(r.cells[head.cellIndex].dataset.v));"
        "})()"
    )
    down, up = await report.run(column), await report.run(column)
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)
    assert len(up) > 3


async def test_hostile_names_stay_text(page: Page, tmp_path: Path) -> None:
    await opened(page, tmp_path, True)
    assert await page.run("window.hacked") is None
    assert await page.run("document.scripts.length") == 1
    assert await page.run("document.querySelectorAll('img, iframe, object, [onload]').length") == 0
    names = await page.run(
        "[...document.querySelectorAll('#cuts tbody th')].map(cell => cell.textContent)"
    )
    assert HOSTILE[0] in names
    assert "turned \\u202egnp.exe" in names
    assert await page.run(WIDEST) <= 1280


def brightness(colour: str) -> float:
    """Of `rgb(r, g, b)`."""
    return sum(float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
