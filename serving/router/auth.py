"""The account a request is charged to."""

from __future__ import annotations

from collections.abc import Mapping

from serving.accounts.book import AccountBook, Enforcement
from serving.accounts.caller import Caller
from serving.api.completion import MAX_ACCOUNT_ID
from serving.api.excerpt import excerpt
from serving.errors import AccountDisabled, Forbidden, InvalidRequest
from serving.http.request import Request
from serving.observability.router_metrics import RouterMetrics

ACCOUNT_HEADER = b"x-selected-account-id"
NO_ACCOUNT = "no account: set account_id or the header x-selected-account-id"


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
    """Chooses the account a request is charged to.

    The policy says what happens to a completion without one: `account_id` is "gradually enforced"
    (the API's words). The key's own account will do; where that account has a policy of its own, a
    completion has to name it. With a store, an account that is not in it is none.
    """

    def __init__(self, policy: str, book: AccountBook, metrics: RouterMetrics) -> None:
        self._policy = Enforcement(policy)
        self._book = book
        self._metrics = metrics

    def choose(
        self, caller: Caller, headers: Mapping[bytes, bytes], body_account: str | None = None
    ) -> str | None:
        """The account of a request.

        Raises:
            InvalidRequest, Forbidden: as `choose_account`.
            AccountDisabled: it is disabled.
        """
        account = choose_account(caller, headers, body_account)
        known = self._book.find(account) if account else None
        if known is not None and known.disabled:
            raise AccountDisabled(f"account '{excerpt(known.id)}' is disabled", param="account_id")
        return account

    def charged(self, caller: Caller, request: Request, body_account: str | None) -> str | None:
        """The account to charge; None if there is none, which the policy `warn` tells the client.

        Raises:
            InvalidRequest: as `choose_account`, or the policy `enforce` finds no account.
            Forbidden: as `choose`, or the policy `enforce` finds no such account.
        """
        account = self.choose(caller, request.headers, body_account)
        own = self._book.find(caller.account) if caller.account else None
        policy = own.enforcement if own and own.enforcement else self._policy
        if policy is Enforcement.OFF:
            return account
        named = bool(body_account or request.headers.get(ACCOUNT_HEADER))
        if account is None or (own and own.enforcement and not named):
            self._warn(policy, request, InvalidRequest(NO_ACCOUNT, param="account_id"))
        elif self._book.complete and self._book.find(account) is None:
            problem = f"account '{excerpt(account)}' does not exist"
            self._warn(policy, request, Forbidden(problem, param="account_id"))
        return account

    def _warn(
        self, policy: Enforcement, request: Request, problem: InvalidRequest | Forbidden
    ) -> None:
        if policy is Enforcement.ENFORCE:
            raise problem
        self._metrics.without_account.inc()
        text = problem.message.encode("ascii", "backslashreplace")
        request.reply_headers.append((b"x-account-warning", text))
