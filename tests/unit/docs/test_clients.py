"""docs/clients.md names the test of every client; it and the README name every endpoint."""

from __future__ import annotations

import re
from pathlib import Path

from serving.api.endpoints import ENDPOINTS, Relayed

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "clients.md").read_text()
README = (ROOT / "README.md").read_text()
# As their makers write their names.
CLIENTS = (
    "openai",
    "langchain-openai",
    "pydantic-ai",
    "instructor",
    "litellm",
    "llm",
    "vllm bench",
)
CLIENTS += ("anthropic", "cohere", "scale-gp", "scale-egp", "scale-gp-beta", "scale-llm-engine")
PROGRAMS = ("LlamaIndex", "lm-eval", "guidellm", "aiperf", "the AI SDK")


def table(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose head begins with this word."""
    _, _, rest = text.partition(f"| {first} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def paths(cells: list[str]) -> list[str]:
    """The beginnings of the paths that they name."""
    found = [path for cell in cells for path in re.findall(r"`(/[^`]+)`", cell)]
    return [re.split(r"\{|\.\.\.", path)[0] for path in found]


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


def test_both_tables_name_every_client() -> None:
    for text, first, column in ((TEXT, "endpoints", 2), (README, "dialect", 2)):
        named = " ".join(row[column] for row in table(text, first))
        for name in CLIENTS:
            assert f"`{name}`" in named, name
        for name in PROGRAMS:
            assert name in named, name


def test_both_tables_name_every_endpoint() -> None:
    """Paths that begin alike stand for each other; those that compare texts are below /v1 too."""
    everything = {endpoint.path for endpoint in ENDPOINTS}
    asked = {at.path for at in ENDPOINTS if isinstance(at.answer, Relayed)}
    asked = {path for path in asked if not path.startswith("/openai/")}  # "Azure's ways"
    for text, first, column, wanted in (
        (TEXT, "endpoints", 0, everything),
        (README, "dialect", 1, asked),
    ):
        named = tuple(paths([row[column] for row in table(text, first)]))
        for path in wanted:
            assert path.startswith(named) or path.removeprefix("/v1").startswith(named), path
