"""Fetches the service's own pages: metrics, lists of them, its ledger."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping
from urllib.error import HTTPError
from urllib.parse import urlsplit

_PAGE_BYTES = 32 << 20
_TIMEOUT_S = 5.0

# Of a URL with these headers. Raises OSError, ValueError or HTTPException.
Fetch = Callable[[str, Mapping[str, str]], bytes]


def key_headers(key: str) -> dict[str, str]:
    """The headers that show a key to the service."""
    return {"authorization": f"Bearer {key}", "x-api-key": key} if key else {}


def get(url: str, headers: Mapping[str, str], timeout_s: float = _TIMEOUT_S) -> bytes:
    """Fetch a page: at most 32 MiB, within `timeout_s` of silence, without a proxy or
    redirections, which would carry a key elsewhere. Raises OSError, ValueError or HTTPException."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no http: or https: URL")
    request = urllib.request.Request(url, headers=dict(headers))
    with _OPENER.open(request, timeout=timeout_s) as response:
        body: bytes = response.read(_PAGE_BYTES + 1)
    if len(body) > _PAGE_BYTES:
        raise ValueError("the page has more than 32 MiB")
    return body


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def targets_of(body: bytes) -> list[str]:
    """The URLs of a page for Prometheus' `http_sd_configs`.

    https://prometheus.io/docs/prometheus/latest/http_sd/. Raises ValueError if it is none.
    """
    groups = json.loads(body)
    found: list[str] = []
    try:
        for group in groups:
            labels = group.get("labels") or {}
            scheme = labels.get("__scheme__", "http")
            path = labels.get("__metrics_path__", "/metrics")
            found += [f"{scheme}://{target}{path}" for target in group["targets"]]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("the page lists no targets in Prometheus' http_sd form") from error
    return found


def why(error: Exception) -> str:
    """Why a page could not be fetched: what the service itself said, if it said something."""
    if isinstance(error, HTTPError):
        try:
            with error:
                return f"{error.code}: {json.loads(error.read(4096))['error']['message']}"
        except (OSError, ValueError, KeyError, TypeError):
            return f"{error.code} {error.reason}"
    return str(error) or type(error).__name__
