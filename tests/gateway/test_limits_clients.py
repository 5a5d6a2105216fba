"""What SDKs make of a refusal by a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.conftest import Open
from tests.gateway.scripts import run
from tests.gateway.test_limits import limited

pytestmark = pytest.mark.sdk


@pytest.mark.parametrize(
    ("environment", "module", "client", "base"),
    [
        ("tools", "openai", "OpenAI", "/v1"),
        ("scale-gp", "scale_gp", "SGPClient", ""),
        ("scale-gp-beta", "scale_gp_beta", "SGPClient", ""),
    ],
)
async def test_clients_see_their_own_error_and_back_off_as_told(
    open_site: Open,
    tmp_path: Path,
    environment: str,
    module: str,
    client: str,
    base: str,
) -> None:
    """Nobody waits for the end of a day, and a minute's limit is waited for as the answer says."""
    site = await limited(
        open_site, tmp_path / "keys", "sk-one requests_per_minute=30\nsk-two tokens_per_day=1"
    )
    arguments = {"base_url": f"http://127.0.0.1:{await site.listen()}{base}"}
    if "scale" in module:
        arguments["account_id"] = "acme"
    job = {"module": module, "client": client, "arguments": arguments}
    job |= {"call": {"model": "echo", "prompt": "one"}, "key": "sk-one", "spent": "sk-two"}
    found = await run(environment, "use_limits.py", job)
    refused = found["refused"]
    assert (refused["error"], refused["is_rate_limit"]) == ("RateLimitError", True)
    assert refused["status"] == 429
    assert "requests_per_minute of key" in refused["message"]
    assert "(30) is reached" in refused["message"]
    assert found["after"] is None
    assert found["waited"], "it was refused at first"
    # The first wait is as long as the first refusal said.
    waited, told = found["waited"][0]
    assert waited >= told >= 1
    spent = found["spent"]
    assert (spent["error"], spent["sent"]) == ("RateLimitError", 1)
    assert "tokens_per_day of key" in spent["message"]
