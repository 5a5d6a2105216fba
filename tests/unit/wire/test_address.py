"""Host and port as one text."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from serving.wire.address import host_port, split_host_port


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fd00::12", "node-1.example"])
def test_there_and_back(host: str) -> None:
    text = host_port(host, 8000)
    assert split_host_port(text) == (host, 8000)
    parts = urlsplit(f"http://{text}/metrics")
    assert (parts.hostname, parts.port) == (host, 8000)


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:x", "[::1]", "host:\u0661"])
def test_no_port(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_host_port(text)
