"""The guard around fetching, against a real HTTPS server on loopback.

The doubles are DNS and, where a fetch shall succeed, the check that refuses loopback.
"""

from __future__ import annotations

import asyncio
import datetime
import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serving.catalogue.spec import ImageLimits
from serving.engine.images.fetch import Fetcher, is_public
from serving.errors import InvalidField, InvalidRequest
from tests.unit.engine.images.pictures import encoded

HOST = "images.example.com"
CONTENT = encoded()


class Dns(AbstractResolver):
    """Answers a name with each of its lists of addresses in turn, and keeps the last."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self.names.get(host, [["127.0.0.1"]])
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for `*.example.com`, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Host:
    """An HTTPS server with one handler, and a fetcher that may reach it."""

    def __init__(self, certificate: Path) -> None:
        self._certificate = certificate
        self.requests: list[web.Request] = []
        self.handler: Handler = self.deliver
        self.port = 0
        self._runner: web.ServerRunner | None = None

    async def deliver(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=CONTENT)

    async def start(self) -> None:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.BaseRequest)
            self.requests.append(request)  # type: ignore[arg-type]
            return await self.handler(request)  # type: ignore[arg-type]

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        self._runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def url(self, path: str = "/a.png", host: str = HOST) -> str:
        return f"https://{host}:{self.port}{path}"

    def fetcher(
        self,
        *,
        hosts: tuple[str, ...] | None = None,
        accept: Callable[[str], bool] = lambda address: address == "127.0.0.1",
        trusting: bool = True,
        dns: Dns | None = None,
        **limits: Any,
    ) -> Fetcher:
        allowed = (f"*.example.com:{self.port}",) if hosts is None else hosts
        trust = ssl.create_default_context(cafile=self._certificate) if trusting else None
        return Fetcher(
            ImageLimits(allowed_hosts=allowed, **limits),
            resolver=dns or Dns(),
            accept=accept,
            trust=trust,
        )


@pytest.fixture
async def host(certificate: Path) -> AsyncIterator[Host]:
    host = Host(certificate)
    await host.start()
    yield host
    await host.close()


def redirect(*locations: str) -> Handler:
    """The first request is sent to the first location, and so on; then the image."""
    left = list(locations)

    async def handle(request: web.Request) -> web.StreamResponse:
        if left:
            return web.Response(status=302, headers={"location": left.pop(0)})
        return web.Response(body=CONTENT)

    return handle


# what works


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


# TLS


async def test_an_unknown_certificate_is_refused(host: Host) -> None:
    with pytest.raises(InvalidRequest, match="no certificate to trust"):
        await host.fetcher(trusting=False).fetch(host.url())
    assert host.requests == []


async def test_the_certificate_must_be_the_hosts(host: Host) -> None:
    with pytest.raises(InvalidRequest, match="no certificate to trust"):
        await host.fetcher(hosts=(f"other.org:{host.port}",)).fetch(host.url(host="other.org"))


# what a host delivers


@pytest.mark.parametrize("status", [201, 204, 304, 404, 500])
async def test_other_statuses_are_the_hosts_fault(host: Host, status: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    host.handler = answer
    with pytest.raises(InvalidRequest, match=f"answered with status {status}"):
        await host.fetcher().fetch(host.url())


async def test_nobody_there(host: Host) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        fetcher = host.fetcher(hosts=(f"{HOST}:{port}",))
        with pytest.raises(InvalidRequest, match="cannot be reached"):
            await fetcher.fetch(f"https://{HOST}:{port}/")


async def test_an_unknown_name(host: Host) -> None:
    class Nowhere(Dns):
        async def resolve(self, *_: Any, **__: Any) -> list[ResolveResult]:
            raise OSError("no such name")

    with pytest.raises(InvalidRequest, match="cannot be reached"):
        await host.fetcher(dns=Nowhere()).fetch(host.url())


async def test_an_announced_length_above_the_limit_is_refused(host: Host) -> None:
    with pytest.raises(InvalidField, match="at most 20 bytes"):
        await host.fetcher(max_bytes=20).fetch(host.url())
    assert await host.fetcher(max_bytes=len(CONTENT)).fetch(host.url()) == CONTENT


async def test_an_endless_body_without_a_length_is_cut_off(host: Host) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"\x89PNG" * 1024)

    host.handler = endless
    with pytest.raises(InvalidField, match="at most 100000 bytes"):
        await host.fetcher(max_bytes=100_000).fetch(host.url())


async def test_a_compressed_body_is_refused(host: Host) -> None:
    async def bomb(request: web.Request) -> web.StreamResponse:
        body = gzip.compress(b"\0" * 1_000_000)
        return web.Response(body=body, headers={"content-encoding": "gzip"})

    host.handler = bomb
    with pytest.raises(InvalidField, match="compressed"):
        await host.fetcher().fetch(host.url())


async def slow_body(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-length": "100000"})
    await response.prepare(request)
    while True:
        await response.write(b"x")
        await asyncio.sleep(0.05)


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def slow_redirects(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0.2)
    return web.Response(status=302, headers={"location": "/again"})


@pytest.mark.parametrize("handler", [slow_body, silent, slow_redirects])
async def test_the_time_limit_is_for_the_whole_fetch(host: Host, handler: Handler) -> None:
    host.handler = handler
    started = time.monotonic()
    with pytest.raises(InvalidRequest, match=r"did not deliver within 0\.5 s"):
        await host.fetcher(timeout_s=0.5).fetch(host.url())
    assert time.monotonic() - started < 1.5
