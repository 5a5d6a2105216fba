"""Which requests may share an engine's prefix cache."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from serving.accounts.caller import Caller
from serving.router.spaces import CacheSpaces
from serving.settings import Settings

ANY, ACME = Caller("0a0b", None), Caller("0c0d", "acme")


def spaces(keys: str, token: str = "token", **settings: Any) -> CacheSpaces:
    settings |= {"api_keys": SecretStr(keys), "cluster_token": SecretStr(token)}
    return CacheSpaces(Settings(**settings))


@pytest.mark.parametrize(
    ("keys", "on"),
    [
        ("sk-a:acme", False),
        ("sk-a:acme,sk-b:acme", False),
        ("sk-a:acme,sk-b:other", True),
        ("sk-a", True),
        ("sk-a:acme,sk-b", True),
        ("", False),
    ],
)
def test_on_where_there_may_be_more_than_one_account(keys: str, on: bool) -> None:
    assert bool(spaces(keys).of(ACME, "acme")) is on
    assert spaces(keys, cache_salt="on").of(ACME, "acme")
    assert not spaces(keys, cache_salt="off").of(ACME, "acme")


def test_one_for_each_account_and_for_each_key_without() -> None:
    at = spaces("sk-a")
    other = Caller("0e0f", None)
    found = [
        at.of(ACME, "acme"),
        at.of(ANY, "other"),
        at.of(ANY, None),
        at.of(other, None),
        # Accounts that are called like what other spaces are named after.
        at.of(ANY, "key 0a0b"),
        at.of(ANY, "account acme"),
        at.of(ANY, "0a0b"),
    ]
    assert len(set(found)) == len(found)
    assert at.of(ANY, "acme") == at.of(ACME, "acme"), "the account counts, not the key"


def test_all_routers_of_an_installation_agree_and_nobody_else_knows() -> None:
    assert spaces("sk-a").of(ANY, "acme") == spaces("sk-a").of(ANY, "acme")
    assert spaces("sk-a").of(ANY, "acme") != spaces("sk-a", token="other").of(ANY, "acme")
    assert "acme" not in spaces("sk-a").of(ANY, "acme")


def test_any_account_that_a_header_can_hold() -> None:
    at = spaces("sk-a")
    assert len({at.of(ANY, name) for name in ("\xff", "\ud800", "ÿ" * 999)}) == 3
