"""Keys of the store that `serving up` keeps, on a running service with several routers."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import httpx
import pytest

from tests.live import BASE, Server, poll

pytestmark = pytest.mark.cluster


def serving(live: Server, *args: str, key: str = "") -> str:
    """What the `serving` command prints."""
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SERVING_")},
        "SERVING_URL": live.url,
        "SERVING_API_KEY": key,
        "SERVING_STATE_DIR": str(live.folder / "state"),
    }
    command = [sys.executable, "-m", "serving.cli", *args]
    done = subprocess.run(command, env=env, cwd=live.code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_key_is_known_and_revoked_at_every_router(live: Server) -> None:
    where = f"sqlite:///{live.folder}/state/store.sqlite3"
    poll(lambda: f"  store    {where}" in live.output.splitlines(), 10, "the store is told")
    admin = serving(live, "keys", "bootstrap")
    routers = [router.url for router in live.routers()]
    assert len(routers) > 1

    def statuses(key: str) -> list[int]:
        body = {"model": BASE, "prompt": "x", "model_parameters": {"max_tokens": 1}}
        headers = {"x-api-key": key}
        return [
            httpx.post(f"{url}/v4/completions", json=body, headers=headers, timeout=60).status_code
            for url in routers
        ]

    assert statuses(admin) == [200] * len(routers), "whoever pastes the next command needs it now"
    serving(live, "accounts", "create", "acme", key=admin)
    key = serving(live, "keys", "create", "--account", "acme", "--model", "tiny-*", key=admin)
    poll(lambda: statuses(key) == [200] * len(routers), 10, "the key is known")
    serving(live, "keys", "revoke", key, key=admin)
    revoked = time.monotonic()
    poll(lambda: statuses(key) == [401] * len(routers), 10, "the key is revoked")
    print(f"refused everywhere after {time.monotonic() - revoked:.2f} s")
    logs = "".join(file.read_text() for file in live.logs.glob("router-*.jsonl"))
    assert key[:16] in logs
    for secret in (key, admin):
        assert secret[17:] not in logs
        assert secret[17:] not in live.output
