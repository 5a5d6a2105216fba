"""Who may call what `serving up` starts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from deployments.callers import Callers
from serving.accounts.secret import id_of
from serving.store.engine import Store
from serving.store.keys import KeyTables


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SERVING_API_KEYS", "SERVING_API_KEYS_FILE", "SERVING_STORE_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SERVING_STATE_DIR", str(tmp_path / "state"))


def start(host: str) -> tuple[Callers, list[str], bool]:
    said: list[str] = []
    # What a start has set, the next one must not find.
    for name in ("SERVING_API_KEYS", "SERVING_STORE_URL"):
        os.environ.pop(name, None)
    callers = Callers(host, 8000)
    assert callers.problem() == ""
    return callers, said, callers.prepare(said.append)


def keys() -> list[str]:
    async def read() -> list[str]:
        store = Store(os.environ["SERVING_STORE_URL"])
        found, _ = await KeyTables(store).keys(account_id=None, skip=0, limit=10)
        await store.close()
        return [key.id for key in found]

    return asyncio.run(read())


def test_on_loopback_it_is_the_key_that_everybody_knows(tmp_path: Path) -> None:
    callers, said, ok = start("127.0.0.1")
    assert (ok, said, callers.shown) == (True, [], "sk-local")
    assert callers.store_shown == f"sqlite:///{tmp_path}/state/store.sqlite3"
    assert os.environ["SERVING_API_KEYS"] == "sk-local"
    assert keys() == []


def test_elsewhere_a_key_is_made_once_and_shown_once() -> None:
    callers, said, ok = start("0.0.0.0")
    (line,) = said
    key = line.split("\n\n")[1].strip()
    assert ok
    assert keys() == [id_of(key)]
    assert "SERVING_API_KEYS" not in os.environ
    assert key not in callers.shown
    callers, said, ok = start("0.0.0.0")
    assert (ok, said) == (True, [])
    assert "made before" in callers.shown
    assert keys() == [id_of(key)]


def test_ones_own_keys_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_API_KEYS", "sk-own:acme,sk-two")
    callers = Callers("0.0.0.0", 8000)
    said: list[str] = []
    assert callers.prepare(said.append)
    assert (said, callers.shown) == ([], "(the first of $SERVING_API_KEYS)")
    assert keys() == []


def test_a_file_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVING_API_KEYS_FILE", "/run/keys")
    callers = Callers("0.0.0.0", 8000)
    assert callers.prepare(lambda _: None)
    assert callers.shown == "(one of $SERVING_API_KEYS_FILE)"
    assert keys() == []


@pytest.mark.parametrize(("host", "ok"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_a_folder_that_cannot_be_used(
    host: str, ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SERVING_STATE_DIR", str(tmp_path / "file"))
    callers, said, prepared = start(host)
    assert prepared is ok
    assert "cannot be used" in said[0]
    if ok:
        assert "SERVING_STATE_DIR" in said[1]
        assert os.environ["SERVING_STORE_URL"] == callers.store_shown == ""


def test_a_store_that_is_named_and_away_is_left_to_the_routers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "postgresql://u:secret@127.0.0.1:1/none"
    monkeypatch.setenv("SERVING_STORE_URL", url)
    callers = Callers("127.0.0.1", 8000)
    said: list[str] = []
    assert callers.prepare(said.append)
    assert os.environ["SERVING_STORE_URL"] == url
    assert "secret" not in said[0] + callers.store_shown
