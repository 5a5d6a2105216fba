from __future__ import annotations

import asyncio

import pytest

from loadtests.wire.service import Service


def test_parts() -> None:
    service = Service("http://example.test")
    assert (service.host, service.port, service.tls) == ("example.test", 80, None)
    service = Service("https://[::1]:8443/base/")
    assert (service.host, service.port, service.authority) == ("::1", 8443, "[::1]:8443")
    assert service.tls is not None
    assert service.path("/v1/completions") == "/base/v1/completions"


def test_a_url_may_end_in_v1() -> None:
    service = Service("http://example.test/v1")
    assert service.path("/v1/chat/completions") == "/v1/chat/completions"
    assert service.path("/v4/completions") == "/v4/completions"
    assert Service("http://example.test/a/v1").path("/v1/x") == "/a/v1/x"


def test_a_password_is_not_sent_as_a_host() -> None:
    assert Service("http://user:pass@example.test:1").authority == "example.test:1"


@pytest.mark.parametrize("url", ["example.test", "ftp://example.test", "http://", "127.0.0.1:8000"])
def test_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="no URL"):
        Service(url)


async def test_the_address_that_answered_is_tried_first() -> None:
    service = Service("http://127.0.0.1:9")
    (only,) = await service.addresses()
    other = (only[0], ("127.0.0.2", 9))
    service.prefer(other)
    assert await service.addresses() == [other, only]


async def test_all_wait_for_the_first_look_up() -> None:
    service = Service("http://127.0.0.1:9")
    first, second = await asyncio.gather(service.addresses(), service.addresses())
    assert first == second != []


async def test_a_later_look_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.wire.service.LOOKUP_S", -1.0)
    service = Service("http://127.0.0.1:9")
    before = await service.addresses()
    looking = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lambda *_, **__: looking)
    assert await service.addresses() == before
    await asyncio.sleep(0)
    looking.set_exception(OSError("the resolver is down"))
    await asyncio.sleep(0)
    assert await service.addresses() == before


async def test_an_unknown_name() -> None:
    with pytest.raises(OSError, match=r"not known|resolution"):
        await Service("http://nowhere.invalid").addresses()
