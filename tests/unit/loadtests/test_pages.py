"""The pages of comparisons and of capacity in a real browser, and `loadtest report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests.capacity.output import html as capacity_page
from loadtests.commands.report import report
from loadtests.compare import compare
from loadtests.compare.output import html as comparison_page
from tests.unit.loadtests.browser import browser, installed
from tests.unit.loadtests.capacity.test_search import searched
from tests.unit.loadtests.compare.runs import made, some
from tests.unit.loadtests.simulated import Service

BINARY = installed()


@pytest.mark.browser
@pytest.mark.skipif(BINARY is None, reason="no Chromium here (Debian: apt install chromium)")
async def test_pages_ask_nothing_and_complain_of_nothing(tmp_path: Path) -> None:
    assert BINARY
    slow = Service(servers=8, mean_s=0.1, token_s=0.02)
    pages = {
        "comparison": comparison_page(
            compare([made("a", Service(servers=8, mean_s=0.1), 1)], [made("b", slow, 2)])
        ),
        "capacity": capacity_page(searched(1, high=8.0)[0]),
    }
    async with browser(BINARY, tmp_path / "profile") as page:
        for name, text in pages.items():
            file = tmp_path / f"{name}.html"
            file.write_text(text, encoding="utf-8")
            await page.open(file)
            assert page.requests == [file.as_uri()]
            for width in (1280, 420):
                await page.show(width, dark=width == 420)
                assert page.complaints == []
                drawn = "[...document.querySelectorAll('circle')].map(c => c.getBBox().width)"
                assert len([size for size in await page.run(drawn) if size > 2]) >= 3, name
                assert await page.run("document.documentElement.scrollWidth") <= width


def test_a_report_can_be_made_again(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(some().model_dump_json())
    assert CliRunner().invoke(report, [str(tmp_path)]).exit_code == 0
    first = (tmp_path / "report.html").read_text()
    other = tmp_path / "other.html"
    found = CliRunner().invoke(report, [str(tmp_path / "summary.json"), "--out", str(other)])
    assert found.exit_code == 0
    assert other.read_text() == first
    (tmp_path / "summary.json").write_text("{}")
    assert CliRunner().invoke(report, [str(tmp_path)]).exit_code == 2
