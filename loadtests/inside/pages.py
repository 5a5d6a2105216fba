"""A service's own JSON pages."""

from __future__ import annotations

import asyncio
import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

from loadtests.measure.pages import get, key_headers

_TIMEOUT_S = 30.0


async def page(url: str, key: str) -> tuple[int, Any]:
    """Return a page's status and content. Raises OSError where there is no answer."""
    return await asyncio.to_thread(_page, url, key)


async def model_ids(url: str, key: str) -> list[str]:
    """Return every model ID that a service lists."""
    _, listed = await page(f"{url}/v1/models", key)
    return [model["id"] for model in listed["data"]]


def _page(url: str, key: str) -> tuple[int, Any]:
    try:
        return 200, json.loads(get(url, key_headers(key), _TIMEOUT_S))
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
    except HTTPException as error:
        raise OSError(f"{url}: {error!r}") from error
