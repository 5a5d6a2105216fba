"""docs/clients.md names the test of every client."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "clients.md").read_text()


def test_every_test_that_is_named_exists() -> None:
    for cell in re.findall(r"`(tests/[\w/]+\.py)`", TEXT):
        assert (ROOT / cell).exists(), cell


def test_every_client_s_test_is_named() -> None:
    for file in (ROOT / "tests" / "e2e").glob("test_*.py"):
        assert f"{file.name}`" in TEXT, file.name


def test_every_environment_s_client_is_named() -> None:
    for file in (ROOT / "requirements").glob("sdk-*.txt"):
        name = file.stem.removeprefix("sdk-")
        # The environment of several clients is named after what they do.
        assert name in TEXT.lower().replace("llamaindex", "llama-index") or name == "tools", name
