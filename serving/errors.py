"""Every error a caller can be shown, each with its HTTP status and stable code.

    ServingError                      500 internal_error
    ├── InvalidRequest                400 invalid_request
    │   └── ContextLengthExceeded     400 context_length_exceeded
    ├── Unauthenticated               401 unauthenticated
    │   ├── KeyExpired                401 key_expired
    │   └── KeyRevoked                401 key_revoked
    ├── Forbidden                     403 forbidden
    │   └── AccountDisabled           403 account_disabled
    ├── NotFound                      404 not_found
    │   ├── UnknownModel              404 unknown_model
    │   └── NotDeployed               404 model_not_deployed
    ├── MethodNotAllowed              405 method_not_allowed
    ├── RequestTimeout                408 request_timeout
    ├── Conflict                      409 conflict
    ├── RetiredModel                  410 model_retired
    ├── LengthRequired                411 length_required
    ├── BodyTooLarge                  413 body_too_large
    ├── TargetTooLong                 414 url_too_long
    ├── UnsupportedEncoding           415 unsupported_encoding
    ├── ExpectationFailed             417 expectation_failed
    ├── InvalidField                  422 invalid_field
    ├── RateLimited                   429 rate_limited
    │   └── BudgetExhausted           429 budget_exhausted
    ├── HeadersTooLarge               431 headers_too_large
    ├── ClientLeft                    499 client_left          (recorded, never sent)
    ├── BadAdapter                    500 bad_adapter
    ├── BadTemplate                   500 bad_template
    ├── EngineError                   500 engine_error
    ├── EngineKilled                  500 engine_killed_by_request
    │   └── Quarantined               500 request_quarantined
    ├── Ended                         500                      (already told in the stream)
    ├── UnsupportedCoding             501 unsupported_coding
    ├── NoStore                       501 no_store
    ├── UpstreamFailed                502 upstream_failed
    │   └── UpstreamMisconfigured     502 upstream_misconfigured
    ├── ModelUnavailable              503 model_unavailable
    │   ├── Overloaded                503 overloaded
    │   ├── LedgerUnavailable         503 ledger_unavailable
    │   └── EngineFailed              503 engine_failed
    ├── StoreUnavailable              503 store_unavailable
    ├── DeadlineExceeded              504 deadline_exceeded
    └── UnsupportedVersion            505 unsupported_version

A message says what was wrong and what to do about it; it never carries a prompt, a key or a
stack trace. `retryable` decides the `x-should-retry` header that the Stainless SDKs obey.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar


class ServingError(Exception):
    """Base of every error that may be shown to a caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = True

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        # Of a response with this error, beside those that all errors have.
        self.headers: list[tuple[bytes, bytes]] = []


class InvalidRequest(ServingError):
    """The request is malformed or contradicts itself."""

    status = HTTPStatus.BAD_REQUEST.value
    code = "invalid_request"
    type = "invalid_request_error"
    retryable = False


class ContextLengthExceeded(InvalidRequest):
    """The prompt, or the prompt and `max_tokens` together, do not fit the model's context."""

    code = "context_length_exceeded"


class Unauthenticated(ServingError):
    """No API key, or one that is not known."""

    status = HTTPStatus.UNAUTHORIZED.value
    code = "unauthenticated"
    type = "authentication_error"
    retryable = False


class KeyExpired(Unauthenticated):
    """The key, or the secret that it was sent with, is no longer valid."""

    code = "key_expired"


class KeyRevoked(Unauthenticated):
    """The key was taken back."""

    code = "key_revoked"


class Forbidden(ServingError):
    """The key is known but may not use this account, model or endpoint, or not from there."""

    status = HTTPStatus.FORBIDDEN.value
    code = "forbidden"
    type = "permission_error"
    retryable = False


class AccountDisabled(Forbidden):
    """An administrator has disabled the account."""

    code = "account_disabled"


class NotFound(ServingError):
    """No such path or resource."""

    status = HTTPStatus.NOT_FOUND.value
    code = "not_found"
    type = "not_found_error"
    retryable = False


class UnknownModel(NotFound):
    """No model, alias or custom model has this ID."""

    code = "unknown_model"


class NotDeployed(NotFound):
    """The model is in the catalogue, but this installation does not serve it."""

    code = "model_not_deployed"


class MethodNotAllowed(ServingError):
    """The path exists, but not with this method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED.value
    code = "method_not_allowed"
    type = "invalid_request_error"
    retryable = False


class RequestTimeout(ServingError):
    """The request's body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT.value
    code = "request_timeout"
    type = "invalid_request_error"
    retryable = False


class Conflict(ServingError):
    """What is to be made exists, or what is to be changed is over."""

    status = HTTPStatus.CONFLICT.value
    code = "conflict"
    type = "invalid_request_error"
    retryable = False


class RetiredModel(ServingError):
    """The model's provider no longer serves it, and no alias names a replacement."""

    status = HTTPStatus.GONE.value
    code = "model_retired"
    type = "not_found_error"
    retryable = False


class LengthRequired(ServingError):
    """A request that should have a body says neither how long it is nor that it is chunked."""

    status = HTTPStatus.LENGTH_REQUIRED.value
    code = "length_required"
    type = "invalid_request_error"
    retryable = False


class UnsupportedEncoding(ServingError):
    """The request's body is compressed in a way that is not decoded here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value
    code = "unsupported_encoding"
    type = "invalid_request_error"
    retryable = False


class BodyTooLarge(ServingError):
    """The request's body is larger than the server accepts."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value
    code = "body_too_large"
    type = "invalid_request_error"
    retryable = False


class TargetTooLong(ServingError):
    """The request's URL is longer than the server accepts."""

    status = HTTPStatus.REQUEST_URI_TOO_LONG.value
    code = "url_too_long"
    type = "invalid_request_error"
    retryable = False


class ExpectationFailed(ServingError):
    """The `Expect` header asks for something that the server does not do."""

    status = HTTPStatus.EXPECTATION_FAILED.value
    code = "expectation_failed"
    type = "invalid_request_error"
    retryable = False


class InvalidField(ServingError):
    """One field is unknown, of the wrong type or out of range."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY.value
    code = "invalid_field"
    type = "invalid_request_error"
    retryable = False


class RateLimited(ServingError):
    """A limit on requests or tokens has been reached; a later attempt may succeed."""

    status = HTTPStatus.TOO_MANY_REQUESTS.value
    code = "rate_limited"
    type = "rate_limit_error"


class BudgetExhausted(RateLimited):
    """What may be used in a day or a month is used up. Clients that retry by themselves would only
    wait in vain."""

    code = "budget_exhausted"
    retryable = False


class HeadersTooLarge(ServingError):
    """The request's headers are larger than the server accepts."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE.value
    code = "headers_too_large"
    type = "invalid_request_error"
    retryable = False


class ClientLeft(ServingError):
    """The caller closed its connection first. Recorded as 499; there is nobody to send it to."""

    status = 499
    code = "client_left"
    type = "client_error"
    retryable = False


class BadAdapter(ServingError):
    """An adapter's files are missing, broken or made for another base model.

    This is the operator's mistake, not the caller's or the engine's, and a retry does not help.
    """

    code = "bad_adapter"
    retryable = False


class BadTemplate(ServingError):
    """A chat template in the models file is not valid: the operator's mistake, too."""

    code = "bad_template"
    retryable = False


class EngineError(ServingError):
    """The engine failed on this request alone and serves the others.

    Another replica would most likely fail on it too: no retry.
    """

    code = "engine_error"
    retryable = False


class EngineKilled(ServingError):
    """The engine died of an exception in the step that first ran this request.

    Sent again, it would most likely end another replica, so no retry.
    """

    code = "engine_killed_by_request"
    retryable = False


class Quarantined(EngineKilled):
    """An engine died of the same request a short while ago; this one was sent to none."""

    code = "request_quarantined"


class Ended(ServingError):
    """A stream failed with `error`, and its client has already been told."""

    code = "ended"

    def __init__(self, error: ServingError) -> None:
        super().__init__(error.message, param=error.param)
        self.error = error


class UnsupportedCoding(ServingError):
    """The body is sent in a transfer coding that the server does not decode."""

    status = HTTPStatus.NOT_IMPLEMENTED.value
    code = "unsupported_coding"
    type = "invalid_request_error"
    retryable = False


class NoStore(ServingError):
    """The installation has no store, which this needs."""

    status = HTTPStatus.NOT_IMPLEMENTED.value
    code = "no_store"
    type = "invalid_request_error"
    retryable = False


class UpstreamFailed(ServingError):
    """A hosted provider answered with an error, or with something that is not an answer."""

    status = HTTPStatus.BAD_GATEWAY.value
    code = "upstream_failed"


class UpstreamMisconfigured(UpstreamFailed):
    """A hosted provider refuses this installation's key, or does not know the model.

    Only the operator can fix it. The caller's own key is valid, so the status is not 401, and a
    retry does not help.
    """

    code = "upstream_misconfigured"
    retryable = False


class ModelUnavailable(ServingError):
    """The model is known, but no replica of it can take the request now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE.value
    code = "model_unavailable"
    type = "overloaded_error"


class Overloaded(ModelUnavailable):
    """Every replica of the model has a full queue."""

    code = "overloaded"


class LedgerUnavailable(ModelUnavailable):
    """What the request would use could not be kept, and the operator wants none to run then."""

    code = "ledger_unavailable"


class EngineFailed(ModelUnavailable):
    """The replica that worked on the request failed."""

    code = "engine_failed"


class StoreUnavailable(ServingError):
    """The store is away, and this cannot be answered without it."""

    status = HTTPStatus.SERVICE_UNAVAILABLE.value
    code = "store_unavailable"


class DeadlineExceeded(ServingError):
    """The request ran longer than the server allows."""

    status = HTTPStatus.GATEWAY_TIMEOUT.value
    code = "deadline_exceeded"
    type = "timeout_error"


class UnsupportedVersion(ServingError):
    """The request is in a version of HTTP that the server does not speak."""

    status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED.value
    code = "unsupported_version"
    type = "invalid_request_error"
    retryable = False


def is_refusal(status: int) -> bool:
    """True for a status that is about the request and does not say that the server failed. 501 and
    505 say that it asks for something that is not done here (RFC 9110, 15.6.2 and 15.6.6)."""
    return 400 <= status < 500 or status in (
        HTTPStatus.NOT_IMPLEMENTED,
        HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    )


def error_class(status: int, code: str) -> type[ServingError]:
    """The exception class for `status` and `code`, to raise an error that a replica sent over its
    link. An unknown pair gives `ServingError`."""
    found: type[ServingError] = ServingError
    todo: list[type[ServingError]] = [ServingError]
    while todo:
        cls = todo.pop()
        todo.extend(cls.__subclasses__())
        if cls.status == status and cls.code == code:
            found = cls
    return found
