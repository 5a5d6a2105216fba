"""The bounds on connections, which other tests make smaller, are those of the table of open
ports."""

from __future__ import annotations

from pathlib import Path

from serving.engine import link_server, ops, strangers
from serving.router import router

OPERATIONS = Path(__file__).parents[4] / "docs" / "operations.md"


def guard(process: str, what_for: str) -> str:
    """What guards these ports, as the table says."""
    section = OPERATIONS.read_text().split("\n## Open ports\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
    (found,) = [row[5] for row in rows if row[0] == f"`{process}`" and row[2].startswith(what_for)]
    return found


def test_an_engines_links_are_guarded_as_the_table_says() -> None:
    assert strangers.HELLO_S == 1.0
    says = guard("serving.engine.server", "links")
    assert "in the first frame and within a second" in says
    assert f"{strangers.MAX_STRANGERS} connections without it" in says
    assert says.endswith(f" {link_server.MAX_LINKS:,} links")


def test_pages_take_as_many_connections_as_the_table_says() -> None:
    pages = guard("serving.engine.server", "`/metrics`")
    assert pages.endswith(f" {ops.MAX_CONNECTIONS} connections")
    own = guard("ray::ServeReplica:router", "the same API")
    assert own.endswith(f" {router.OWN_CONNECTIONS} connections")
