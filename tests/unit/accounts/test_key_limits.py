from __future__ import annotations

from ipaddress import ip_address

import pytest

from serving.accounts.key_limits import UNLIMITED, KeyLimits


@pytest.mark.parametrize(
    ("patterns", "model", "may"),
    [
        (None, "any", True),
        ((), "any", False),
        (("tiny-llama",), "tiny-llama", True),
        (("tiny-llama",), "tiny-llama.pirate", False),
        (("tiny-llama*",), "tiny-llama.pirate", True),
        (("*",), "a/b\nc", True),
        (("*.pirate",), "tiny-llama.pirate", True),
        (("a", "b*"), "bc", True),
        (("a.c",), "abc", False),
        (("[a]",), "a", False),
        (("[a]",), "[a]", True),
        (("a",), "A", False),
    ],
)
def test_models(patterns: tuple[str, ...] | None, model: str, may: bool) -> None:
    assert KeyLimits(models=patterns).allow_model(model) is may
    assert KeyLimits(endpoints=patterns).allow_endpoint(model) is may


@pytest.mark.parametrize(
    ("networks", "address", "may"),
    [
        (None, "1.2.3.4", True),
        (None, None, True),
        ((), "1.2.3.4", False),
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.0/8",), None, False),
        (("10.0.0.1",), "10.0.0.1", True),
        (("10.0.0.1", "2001:db8::/32"), "2001:db8::1", True),
        (("10.0.0.0/8",), "::1", False),
    ],
)
def test_networks(networks: tuple[str, ...] | None, address: str | None, may: bool) -> None:
    limits = KeyLimits(networks=networks)
    assert limits.allow_address(ip_address(address) if address else None) is may


def test_priorities() -> None:
    assert UNLIMITED.allow_priority("interactive")
    assert UNLIMITED.allow_priority("batch")
    assert not KeyLimits(priorities=("batch",)).allow_priority("interactive")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": [""]}, "models: "),
        ({"models": ["a\nb"]}, "models: "),
        ({"endpoints": ["x" * 300]}, "endpoints: "),
        ({"models": ["x"] * 101}, "models: has 101 items"),
        ({"networks": ["10.0.0.1/8"]}, "networks: .*host bits"),
        ({"networks": ["here"]}, "networks: .*10.0.0.0/8"),
        ({"priorities": ["batch", "urgent"]}, "priorities: 'urgent'"),
    ],
)
def test_what_is_no_limit_is_refused(given: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeyLimits.of(given)


def test_they_are_stored_and_read_again() -> None:
    limits = KeyLimits(models=("a*",), networks=())
    assert limits.stored == {"models": ["a*"], "networks": []}
    assert KeyLimits.of(limits.stored) == limits
    assert KeyLimits.of({}) == UNLIMITED
    assert UNLIMITED.stored == {}
