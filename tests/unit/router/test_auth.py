from __future__ import annotations

import pytest
from pydantic import SecretStr

from serving.errors import Forbidden, InvalidRequest, Unauthenticated
from serving.router.auth import Caller, KeyRing, choose_account
from serving.settings import Settings

KEYS = KeyRing(Settings(api_keys=SecretStr("sk-any, sk-acme:acme,,")).keys)
ANY = Caller("k", None)
ACME = Caller("k", "acme")


@pytest.mark.parametrize(
    "headers",
    [
        {b"x-api-key": b"sk-acme"},
        {b"authorization": b"Bearer sk-acme"},
        {b"authorization": b"bearer  sk-acme "},
        {b"x-api-key": b"sk-acme", b"authorization": b"Basic xxx"},
    ],
)
def test_both_headers(headers: dict[bytes, bytes]) -> None:
    assert KEYS.authenticate(headers).account == "acme"


def test_a_key_without_an_account() -> None:
    assert KEYS.authenticate({b"x-api-key": b"sk-any"}).account is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"x-api-key": b""},
        {b"x-api-key": b"sk-other"},
        {b"x-api-key": b"sk-acme:acme"},
        {b"x-api-key": b"\xff\xfe"},
        {b"x-api-key": b"sk-other", b"authorization": b"Bearer sk-acme"},
        {b"authorization": b"sk-acme"},
        {b"authorization": b"Basic sk-acme"},
        {b"authorization": b"Bearer "},
    ],
)
def test_strangers(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        KEYS.authenticate(headers)
    assert "sk-" not in caught.value.message


def test_no_keys_let_nobody_in() -> None:
    with pytest.raises(Unauthenticated):
        KeyRing({}).authenticate({b"x-api-key": b""})


def test_no_key_is_kept() -> None:
    assert b"sk-acme" not in repr(vars(KEYS)).encode()


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


def test_a_key_may_hold_equals_signs() -> None:
    caller = KeyRing(Settings(api_keys=SecretStr("c2VjcmV0==:acme")).keys).authenticate(
        {b"x-api-key": b"c2VjcmV0=="}
    )
    assert caller.account == "acme"
