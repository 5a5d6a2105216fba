"""Where requests stand among others that wait."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from serving.accounts.book import Account, AccountBook
from serving.accounts.caller import Caller
from serving.accounts.key_limits import KeyLimits
from serving.errors import Forbidden, InvalidRequest
from serving.router.spaces import CacheSpaces
from serving.router.standing import PRIORITY_HEADER, Standings
from serving.settings import Settings

ANY, ACME = Caller("0a0b", None), Caller("0c0d", "acme")


def standings(**settings: Any) -> Standings:
    read = Settings(cluster_token=SecretStr("token"), **settings)
    book = AccountBook()
    book.set_weights(read.weights)
    book.update([Account("stored", weight=8), Account("other", weight=8)])
    return Standings(book, CacheSpaces(read))


def limited(*priorities: str) -> Caller:
    return Caller("0e0f", "acme", limits=KeyLimits(priorities=priorities))


@pytest.mark.parametrize(
    ("caller", "named", "low", "batch"),
    [
        (ACME, "", False, False),
        (ACME, "", True, True),
        (ACME, "batch", False, True),
        (ACME, " Batch ", False, True),
        (ACME, "interactive", True, False),
        (limited("batch"), "", False, True),
        (limited("batch"), "batch", False, True),
        (limited("interactive"), "", False, False),
        (limited("interactive", "batch"), "", False, False),
    ],
)
def test_the_priority(caller: Caller, named: str, low: bool, batch: bool) -> None:
    headers = {PRIORITY_HEADER: named.encode()} if named else {}
    assert standings().of(caller, "acme", headers, batch=low).batch is batch


@pytest.mark.parametrize(
    ("caller", "named", "low"),
    [
        (limited("batch"), "interactive", False),
        (limited("interactive"), "batch", False),
        (limited("interactive"), "", True),
        (limited(), "", False),
    ],
)
def test_a_priority_that_the_key_may_not_use_is_refused(
    caller: Caller, named: str, low: bool
) -> None:
    headers = {PRIORITY_HEADER: named.encode()} if named else {}
    with pytest.raises(Forbidden):
        standings().of(caller, "acme", headers, batch=low)


def test_what_is_no_priority_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="x-priority"):
        standings().of(ACME, "acme", {PRIORITY_HEADER: b"urgent"}, batch=False)


def test_weights_are_of_accounts() -> None:
    at = standings(account_weights="acme=4,other=0.5")
    accounts = ("acme", "other", "stored", "third", None)
    # Those of the setting count before the store's.
    assert [at.of(ANY, a, {}, batch=False).weight for a in accounts] == [4, 0.5, 8, 1, 1]


def test_owners_are_told_apart_also_where_all_share_the_caches() -> None:
    at = standings(cache_salt="off")
    owners = [
        at.of(ANY, "acme", {}, batch=False).owner,
        at.of(ANY, "other", {}, batch=False).owner,
        at.of(ANY, None, {}, batch=False).owner,
        at.of(ACME, None, {}, batch=False).owner,
    ]
    assert len({*owners, ""}) == 5
    assert at.of(ACME, "acme", {}, batch=False).owner == owners[0], "another key of the account"
    assert "acme" not in owners[0]
