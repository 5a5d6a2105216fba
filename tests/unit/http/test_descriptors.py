"""Connections fit into the limit of open files."""

from __future__ import annotations

import resource

import pytest

from serving.http.descriptors import (
    FOR_EACH,
    MACOS_LIMIT,
    RESERVED,
    connections_within,
    raise_limit,
)


@pytest.mark.parametrize("limit", [0, 100, 1024, 4096, 20_256, 1_048_576, None])
def test_what_they_bring_fits_too(limit: int | None) -> None:
    granted = connections_within(10_000, limit)
    assert 1 <= granted <= 10_000
    if limit is None or limit >= 10_000 * FOR_EACH + RESERVED:
        assert granted == 10_000
    elif limit >= 2 * RESERVED:
        assert granted * FOR_EACH + RESERVED <= limit
    else:
        assert granted == max(1, limit // 4)


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert raise_limit() == (None if hard == resource.RLIM_INFINITY else hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_hard_limit_that_the_system_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: infinite, and refused when it is set."""
    taken: list[tuple[int, int]] = []

    def take(_: int, limits: tuple[int, int]) -> None:
        if limits[0] == resource.RLIM_INFINITY:
            raise ValueError("current limit exceeds maximum limit")
        taken.append(limits)

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", take)
    assert raise_limit() == MACOS_LIMIT
    assert taken == [(MACOS_LIMIT, resource.RLIM_INFINITY)]
