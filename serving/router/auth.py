"""Who is calling: API keys and the account a request is charged to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving.api.completion import MAX_ACCOUNT_ID
from serving.api.excerpt import excerpt
from serving.errors import Forbidden, InvalidRequest, Unauthenticated
from serving.http.request import Request, key_of
from serving.observability.metrics import RouterMetrics

ACCOUNT_HEADER = b"x-selected-account-id"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a known key. With `account` None the key may use any account."""

    key_id: str
    account: str | None


# The caller of an endpoint that needs no key.
ANYONE = Caller("", None)


class KeyRing:
    """The API keys of an installation.

    Keys are kept and compared as SHA-256 digests, so that a lookup takes the same time for any
    wrong key and a dump of this process's tables shows none.
    """

    def __init__(self, keys: Mapping[str, str | None]) -> None:
        self._callers: dict[bytes, Caller] = {}
        for key, account in keys.items():
            digest = hashlib.sha256(key.encode()).digest()
            self._callers[digest] = Caller(digest.hex()[:8], account)

    def authenticate(self, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller of a request.

        Raises:
            Unauthenticated: no key, or an unknown one.
        """
        if not (key := key_of(headers)):
            raise Unauthenticated(
                "no API key: send 'x-api-key: KEY' or 'Authorization: Bearer KEY'"
            )
        caller = self._callers.get(hashlib.sha256(key).digest())
        if caller is None:
            raise Unauthenticated("unknown API key")
        return caller


def choose_account(
    caller: Caller, headers: Mapping[bytes, bytes], body_account: str | None
) -> str | None:
    """The account a request is charged to: header, else body, else the key's own.

    Raises:
        InvalidRequest: header and body name different accounts, or the header's is too long.
        Forbidden: the key may not use the account.
    """
    header = headers.get(ACCOUNT_HEADER, b"").decode("latin-1") or None
    if header and len(header) > MAX_ACCOUNT_ID:
        raise InvalidRequest(
            f"header x-selected-account-id has more than {MAX_ACCOUNT_ID} characters",
            param="account_id",
        )
    if header and body_account and header != body_account:
        raise InvalidRequest(
            f"header x-selected-account-id names account '{excerpt(header)}', the body's "
            f"account_id names '{excerpt(body_account)}'",
            param="account_id",
        )
    account = header or body_account or caller.account
    if account and caller.account and account != caller.account:
        raise Forbidden(
            f"this API key may not use account '{excerpt(account)}'", param="account_id"
        )
    return account


class Accounts:
    """Chooses the account a request is charged to. The policy says what happens to a request that
    names none: `account_id` is "gradually enforced" (the API's words)."""

    def __init__(self, policy: Literal["off", "warn", "enforce"], metrics: RouterMetrics) -> None:
        self._policy = policy
        self._metrics = metrics

    def charged(self, caller: Caller, request: Request, body_account: str | None) -> str | None:
        """The account to charge; None if there is none, which the policy `warn` tells the client.

        Raises:
            InvalidRequest: as `choose_account`, or the policy `enforce` finds no account.
            Forbidden: as `choose_account`.
        """
        account = choose_account(caller, request.headers, body_account)
        if account is not None or self._policy == "off":
            return account
        message = "no account: set account_id or the header x-selected-account-id"
        if self._policy == "enforce":
            raise InvalidRequest(message, param="account_id")
        self._metrics.without_account.inc()
        request.reply_headers.append((b"x-account-warning", message.encode()))
        return None
