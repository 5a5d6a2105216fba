from __future__ import annotations

from typing import Any

import pytest

from serving.accounts.book import Account, AccountBook, Enforcement
from serving.accounts.caller import Caller
from serving.errors import AccountDisabled, Forbidden, InvalidRequest, ServingError
from serving.http.request import Request
from serving.observability.router_metrics import RouterMetrics
from serving.router.auth import NO_ACCOUNT, Accounts, choose_account

ANY = Caller("k", None)
ACME = Caller("k", "acme")


@pytest.mark.parametrize(
    ("caller", "header", "body", "account"),
    [
        (ANY, None, None, None),
        (ANY, b"a", None, "a"),
        (ANY, None, "a", "a"),
        (ANY, b"a", "a", "a"),
        (ANY, b"", "", None),
        (ACME, None, None, "acme"),
        (ACME, b"acme", None, "acme"),
        (ACME, None, "acme", "acme"),
    ],
)
def test_the_account(
    caller: Caller, header: bytes | None, body: str | None, account: str | None
) -> None:
    headers = {} if header is None else {b"x-selected-account-id": header}
    assert choose_account(caller, headers, body) == account


def test_header_and_body_must_agree() -> None:
    with pytest.raises(InvalidRequest, match=r"'a'.*'b'"):
        choose_account(ANY, {b"x-selected-account-id": b"a"}, "b")


@pytest.mark.parametrize(("header", "body"), [(b"b", None), (None, "b")])
def test_another_account_is_forbidden(header: bytes | None, body: str | None) -> None:
    headers = {} if header is None else {b"x-selected-account-id": header}
    with pytest.raises(Forbidden, match="'b'"):
        choose_account(ACME, headers, body)


def book(complete: bool, *accounts: Account) -> AccountBook:
    made = AccountBook()
    if complete:
        made.replace(accounts)
    else:
        made.update(accounts)
    return made


def charge(
    policy: str, known: AccountBook, caller: Caller, body: str | None = None
) -> tuple[str | None, str]:
    """The account, and the warning or refusal."""
    metrics = RouterMetrics()
    request = Request({}, None, None, "id", "/")  # type: ignore[arg-type]
    try:
        account = Accounts(policy, known, metrics).charged(caller, request, body)
    except ServingError as error:
        return None, f"{error.status} {error.message}"
    headers: Any = dict(request.reply_headers)
    warned = metrics.registry.get_sample_value("serving_requests_without_account_total")
    assert bool(warned) == (b"x-account-warning" in headers)
    return account, headers.get(b"x-account-warning", b"").decode()


@pytest.mark.parametrize(
    ("policy", "told"), [("off", ""), ("warn", NO_ACCOUNT), ("enforce", f"400 {NO_ACCOUNT}")]
)
def test_who_names_no_account(policy: str, told: str) -> None:
    for known in (book(False), book(True)):
        assert charge(policy, known, ANY) == (None, told)


@pytest.mark.parametrize("policy", ["off", "warn", "enforce"])
def test_the_keys_account_will_do(policy: str) -> None:
    assert charge(policy, book(True, Account("acme")), ACME) == ("acme", "")
    assert charge(policy, book(False), ACME) == ("acme", "")


@pytest.mark.parametrize("policy", ["off", "warn", "enforce"])
@pytest.mark.parametrize(
    ("own", "account", "told"),
    [
        (Enforcement.OFF, "acme", ""),
        (Enforcement.WARN, "acme", NO_ACCOUNT),
        (Enforcement.ENFORCE, None, f"400 {NO_ACCOUNT}"),
    ],
)
def test_an_accounts_own_policy(
    policy: str, own: Enforcement, account: str | None, told: str
) -> None:
    known = book(True, Account("acme", own))
    assert charge(policy, known, ACME) == (account, told)
    assert charge(policy, known, ACME, "acme") == ("acme", "")


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("off", ""),
        ("warn", "account 'typo' does not exist"),
        ("enforce", "403 account 'typo' does not exist"),
    ],
)
def test_an_account_that_does_not_exist(policy: str, told: str) -> None:
    account = None if policy == "enforce" else "typo"
    assert charge(policy, book(True, Account("acme")), ANY, "typo") == (account, told)
    # Without a store any name is an account.
    assert charge(policy, book(False), ANY, "typo") == ("typo", "")


def test_a_warning_is_ascii() -> None:
    assert charge("warn", book(True), ANY, "ä€")[1] == r"account '\xe4\u20ac' does not exist"


@pytest.mark.parametrize("caller", [ANY, ACME])
def test_a_disabled_account_is_refused(caller: Caller) -> None:
    accounts = Accounts("off", book(True, Account("acme", disabled=True)), RouterMetrics())
    with pytest.raises(AccountDisabled, match="'acme' is disabled"):
        accounts.choose(caller, {b"x-selected-account-id": b"acme"})
