"""`serving store` and `serving keys bootstrap`, on real databases."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from serving.accounts.secret import id_of, is_whole
from tests.unit.cli.conftest import run


@pytest.fixture(autouse=True)
def _no_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.cli.store.KNOWN_S", 0)


def never(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"nothing should be sent, got {request.url}")


def test_the_schema_is_shown_and_brought_up_to_date(store_url: str) -> None:
    env = {"SERVING_STORE_URL": store_url}
    before = run(never, "store", "status", env=env)
    assert before.exit_code == 1
    assert "missing  0001_accounts" in before.stdout
    assert run(never, "store", "upgrade", env=env).stdout.startswith("done     0001_accounts\n")
    after = run(never, "store", "status", env=env)
    assert after.exit_code == 0
    assert "missing" not in after.stdout
    assert "done" not in run(never, "store", "upgrade", env=env).stdout


def test_a_key_is_made_on_the_store(store_url: str) -> None:
    made = run(never, "keys", "bootstrap", env={"SERVING_STORE_URL": store_url})
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert is_whole(key)
    assert (id_of(key) or "?") in made.stderr
    assert key not in made.stderr


def test_without_a_url_it_is_that_of_serving_up(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    made = run(never, "keys", "bootstrap", "--port", "9000", env=env)
    assert made.exit_code == 0
    assert (tmp_path / "serving" / "9000" / "store.sqlite3").exists()


def test_a_store_that_is_not_there() -> None:
    for url in ("postgresql://u:secret@127.0.0.1:1/x", "mysql://u:secret@db/x"):
        result = run(never, "store", "status", "--store", url)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert "secret" not in result.output
