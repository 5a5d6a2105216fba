"""A service's own JSON pages."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

_TIMEOUT_S = 30.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def page(url: str, key: str) -> tuple[int, Any]:
    """Return a page's status and content. Raises OSError where there is no answer."""
    return await asyncio.to_thread(_page, url, key)


async def model_ids(url: str, key: str) -> list[str]:
    """Return every model ID that a service lists."""
    _, listed = await page(f"{url}/v1/models", key)
    return [model["id"] for model in listed["data"]]


def _page(url: str, key: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, headers={"x-api-key": key})
    try:
        with _OPENER.open(request, timeout=_TIMEOUT_S) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
    except HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error
