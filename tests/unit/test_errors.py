from __future__ import annotations

import re

import pytest

from serving import errors
from serving.errors import (
    Ended,
    EngineFailed,
    Overloaded,
    ServingError,
    error_class,
    is_refusal,
)


def classes() -> list[type[ServingError]]:
    found = [ServingError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return [cls for cls in found if cls.__module__ == errors.__name__]


def test_the_docstring_draws_every_class_with_its_status_and_code() -> None:
    drawn = {
        name: (int(status), code)
        for name, status, code in re.findall(
            r"([A-Z]\w+) +(\d{3})(?: +([a-z_]+)\b)?", errors.__doc__ or ""
        )
    }
    for cls in classes():
        status, code = drawn[cls.__name__]
        assert status == cls.status
        assert code in ("", cls.code)


def test_codes_are_unique() -> None:
    pairs = [(cls.status, cls.code) for cls in classes()]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_a_class_is_found_again_by_status_and_code(cls: type[ServingError]) -> None:
    assert error_class(cls.status, cls.code) is cls


def test_an_unknown_pair_is_a_plain_error() -> None:
    assert error_class(503, "from_the_future") is ServingError


def test_what_a_caller_did_wrong_is_not_retryable() -> None:
    for cls in classes():
        later = cls.status == 429 or not is_refusal(cls.status)
        mended_by_operator = cls.code in (
            *("bad_adapter", "bad_template", "upstream_misconfigured"),
            *("engine_killed_by_request", "request_quarantined"),
        )
        of_this_request = cls.code in ("engine_error", "budget_exhausted")
        assert cls.retryable == (later and not mended_by_operator and not of_this_request), cls


def test_what_http_calls_a_servers_lack_is_a_refusal() -> None:
    refusals = {status for status in range(100, 600) if is_refusal(status)}
    assert refusals == {*range(400, 500), 501, 505}


def test_an_error_keeps_what_it_was_told() -> None:
    error = Overloaded("full", param="model", retry_after_s=5)
    assert (error.message, error.param, error.retry_after_s) == ("full", "model", 5)
    assert str(error) == "full"


def test_ended_carries_the_failure() -> None:
    failure = EngineFailed("died", param="model")
    assert Ended(failure).error is failure
    assert Ended(failure).message == "died"
