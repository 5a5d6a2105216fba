from __future__ import annotations

import pytest

from serving.accounts.caller import ANYONE, Caller, Role
from serving.accounts.key_limits import KeyLimits
from serving.errors import Forbidden


@pytest.mark.parametrize(
    ("role", "method", "manages", "may"),
    [
        (Role.READ, "GET", False, True),
        (Role.READ, "HEAD", False, True),
        (Role.READ, "POST", False, False),
        (Role.READ, "GET", True, False),
        (Role.USE, "POST", False, True),
        (Role.USE, "GET", True, False),
        (Role.ADMIN, "POST", False, True),
        (Role.ADMIN, "PATCH", True, True),
    ],
)
def test_roles(role: Role, method: str, manages: bool, may: bool) -> None:
    caller = Caller("k", None, role)
    if may:
        caller.check_endpoint(method, "/x", manages=manages)
    else:
        with pytest.raises(Forbidden):
            caller.check_endpoint(method, "/x", manages=manages)


def test_endpoints() -> None:
    caller = Caller("k", None, limits=KeyLimits(endpoints=("/v1/*",)))
    caller.check_endpoint("POST", "/v1/chat/completions")
    with pytest.raises(Forbidden, match="/v4/completions"):
        caller.check_endpoint("POST", "/v4/completions")


def test_models() -> None:
    caller = Caller("k", None, limits=KeyLimits(models=("a",)))
    assert caller.may_use("a")
    assert caller.may_use("alias", "a")
    assert not caller.may_use("b")
    assert ANYONE.may_use("b")
