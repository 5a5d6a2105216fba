"""Host and port as one text, the way URLs and Prometheus write it."""

from __future__ import annotations


def host_port(host: str, port: int) -> str:
    """`HOST:PORT`, with brackets around an IPv6 address (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(text: str) -> tuple[str, int]:
    """The two parts of such a text.

    Raises:
        ValueError: it has no port.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise ValueError(f"'{text}' is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)
