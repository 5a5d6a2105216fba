"""The guard around fetching, against a real HTTPS server on loopback: which hosts and addresses."""

from __future__ import annotations

import pytest
from aiohttp import web

from serving.catalogue.spec import ImageLimits
from serving.engine.images.fetch import Fetcher, is_public
from serving.errors import InvalidField
from tests.unit.engine.images.hosts import CONTENT, HOST, Dns, Host, redirect


async def test_an_allowed_host_delivers(host: Host) -> None:
    assert await host.fetcher().fetch(host.url()) == CONTENT
    (request,) = host.requests
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"{HOST}:{host.port}"
    assert "cookie" not in request.headers


async def test_redirects_between_allowed_hosts_are_followed(host: Host) -> None:
    host.handler = redirect("/b", host.url("/c", host="other.example.com"), "d")
    assert await host.fetcher().fetch(host.url()) == CONTENT
    assert [request.path for request in host.requests] == ["/a.png", "/b", "/c", "/d"]


async def test_a_body_without_a_length_is_read(host: Host) -> None:
    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in CONTENT:
            await response.write(bytes([byte]))
        return response

    host.handler = chunked
    assert await host.fetcher().fetch(host.url()) == CONTENT


# which hosts


async def test_by_default_no_host_is_allowed(host: Host) -> None:
    dns = Dns()
    with pytest.raises(InvalidField, match=r"images\.allowed_hosts"):
        await host.fetcher(hosts=(), dns=dns).fetch(host.url())
    assert dns.asked == [] == host.requests


@pytest.mark.parametrize(
    ("pattern", "url", "allowed"),
    [
        ("example.com", "https://example.com/a", True),
        ("example.com", "https://EXAMPLE.com/a", True),
        ("Example.com", "https://example.com:443/a", True),
        ("example.com", "https://www.example.com/a", False),
        ("example.com", "https://example.com.evil.org/a", False),
        ("example.com", "https://example.com@evil.org/a", False),
        ("example.com", "https://evil.org/#example.com", False),
        ("example.com", "https://example.com:8443/a", False),
        ("example.com", "https://example.com./a", False),
        ("example.com:8443", "https://example.com:8443/a", True),
        ("example.com:8443", "https://example.com/a", False),
        ("*.example.com", "https://a.example.com/a", True),
        ("*.example.com", "https://a.b.example.com/a", True),
        ("*.example.com", "https://example.com/a", False),
        ("*.example.com", "https://.example.com/a", False),
        ("*.example.com", "https://evilexample.com/a", False),
        ("*", "https://anything.org/a", True),
        ("*", "https://anything.org:8443/a", False),
        ("*", "https://127.0.0.1/a", False),
        ("127.0.0.1", "https://127.0.0.1/a", False),
        ("*", "https://2130706433/a", False),
        ("*", "https://0x7f.1/a", False),
        ("*", "https://0x7f000001/a", False),
        ("*", "https://a.0x7f/a", False),
        ("*", "https://127.1/a", False),
        ("*", "https://[::1]/a", False),
        ("*", "https://[::ffff:127.0.0.1]/a", False),
        ("*", "https://①②⑦.0.0.1/a", False),
        ("*", "https://u:p@anything.org/a", False),
        ("*", "https://u@anything.org/a", False),
        ("*", "http://anything.org/a", False),
        ("*", "https:///a", False),
        ("*", "https://", False),
        ("*", "https://a b/", False),
        ("*", "https://anything.org:99999/", False),
        ("*", "https://anything.org/" + "a" * 2048, False),
    ],
)
async def test_which_urls_are_asked_for(pattern: str, url: str, allowed: bool) -> None:
    """DNS is asked only for those that pass; its answer is then refused."""
    dns = Dns()
    fetcher = Fetcher(ImageLimits(allowed_hosts=(pattern,)), resolver=dns)
    with pytest.raises(InvalidField):
        await fetcher.fetch(url)
    assert bool(dns.asked) == allowed


# which addresses


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.9.9.9",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1%eth0",
        "fec0::1",
        "ff0e::1",
        "localhost",
        "",
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["::1"], ["169.254.169.254"], ["8.8.8.8", "127.0.0.1"], ["10.0.0.1"]],
)
async def test_a_name_with_a_private_address_is_never_connected_to(
    host: Host, addresses: list[str]
) -> None:
    dns = Dns(images_example_com=[addresses])
    with pytest.raises(InvalidField, match="not on the public internet") as caught:
        await host.fetcher(accept=is_public, dns=dns).fetch(host.url())
    assert not any(address in caught.value.message for address in addresses)
    assert host.requests == []


async def test_the_address_that_was_checked_is_the_one_connected_to(host: Host) -> None:
    """DNS rebinding: the second answer would be private, and there is no second question."""
    dns = Dns(images_example_com=[["127.0.0.1"], ["10.0.0.1"]])
    assert await host.fetcher(dns=dns).fetch(host.url()) == CONTENT
    assert dns.asked == [HOST]


async def test_a_redirect_asks_dns_again_and_checks_again(host: Host) -> None:
    dns = Dns(images_example_com=[["127.0.0.1"], ["10.0.0.1"]])
    host.handler = redirect("/b")
    with pytest.raises(InvalidField, match="not on the public internet"):
        await host.fetcher(dns=dns).fetch(host.url())
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("https://inside.example.com:{port}/", "not on the public internet"),
        ("https://metadata.internal/latest", "not allowed"),
        ("https://169.254.169.254/latest/meta-data", "not by its address"),
        ("https://127.0.0.1:{port}/", "not by its address"),
        ("http://images.example.com:{port}/", "only `data:` and `https:`"),
        ("file:///etc/passwd", "only `data:` and `https:`"),
        ("data:image/png;base64,AAAA", "only `data:` and `https:`"),
        ("https://u:p@images.example.com:{port}/", "credentials"),
        ("https://images.example.com/", "not allowed"),
        ("https://[", "no valid URL"),
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(
    host: Host, location: str, says: str
) -> None:
    host.handler = redirect(location.format(port=host.port))
    dns = Dns(inside_example_com=[["10.0.0.1"]])
    with pytest.raises(InvalidField, match=says):
        await host.fetcher(dns=dns).fetch(host.url())
    assert len(host.requests) == 1


async def test_redirects_end(host: Host) -> None:
    host.handler = redirect(*["/again"] * 9)
    with pytest.raises(InvalidField, match="more than 3 redirects"):
        await host.fetcher().fetch(host.url())
    assert len(host.requests) == 4


async def test_a_proxy_of_the_environment_is_not_used(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await host.fetcher().fetch(host.url()) == CONTENT
