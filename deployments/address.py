"""The address that `serving up` serves on: whether it may, whether it is free, how to reach it."""

from __future__ import annotations

import socket

from deployments.environment import asks_for_no_token
from serving.settings import Settings, is_loopback
from serving.wire.address import host_port


def unguarded(host: str) -> str:
    """Why nothing may listen on `host` with the settings of the environment: other machines could
    call without having been told a secret. Empty if it may."""
    try:
        Settings(host=host).check_key()
    except ValueError as error:
        return str(error)
    if asks_for_no_token() and not is_loopback(host):
        return (
            "RAY_AUTH_MODE lets anybody call Ray, and --host is not loopback; unset it, or serve "
            "on 127.0.0.1"
        )
    return ""


def not_free(host: str, port: int) -> str:
    """Why nothing can listen on this port; empty if something can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def url_of(host: str, port: int) -> str:
    """Where this machine reaches what listens on `host`."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{host_port(host, port)}"
