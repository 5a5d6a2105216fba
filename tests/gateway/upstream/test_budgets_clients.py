"""What openai's SDK makes of a stream that ends where its budget does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.conftest import KEY
from tests.gateway.scripts import run
from tests.gateway.upstream.conftest import CANARY, Start
from tests.gateway.upstream.test_budgets import BUDGET, WORDS, limited

pytestmark = pytest.mark.sdk


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
async def test_it_raises_with_the_code_once_the_text_has_come(
    start: Start, tmp_path: Path, endpoint: str
) -> None:
    world = await limited(start, tmp_path)
    job = {
        "base_url": f"http://127.0.0.1:{await world.site.listen()}/v1",
        "key": KEY["x-api-key"],
        "endpoint": endpoint,
        "model": "m-openai",
        "prompt": CANARY,
    }
    found = await run("tools", "use_budget.py", job)
    assert (found["error"], found["code"]) == ("APIError", "budget_exhausted")
    assert f"tokens_per_day of account 'acme' ({BUDGET}) is used up" in found["message"]
    assert len(world.openai.requests) == 1, "it tries again"
    # All that came before, of which nobody knows the tokens but the provider.
    count = len(found["text"].split())
    assert count > BUDGET / 2
    assert found["text"] == "".join(WORDS[:count])
