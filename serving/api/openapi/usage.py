"""What the description says of the ledger's endpoints, and its schemas."""

from __future__ import annotations

from typing import Any

from serving.api.openapi.describe import Text
from serving.api.usage import BY, DEFAULT_DAYS, MAX_CHUNKS, MAX_ENTRIES

_TAG = "Usage"
_SEES = (
    "A key with the role `admin` sees all usage, a key of an account that account's, and a key "
    "without an account what was done with the key itself."
)
_TEXT: dict[str, Any] = {"type": "string"}
_MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}


def _time(words: str) -> dict[str, Any]:
    more = "a date or a time in ISO 8601; UTC where it names no zone"
    return {"schema": _TEXT, "description": f"{words}: {more}", "example": "2026-11-01"}


_TIMES = {
    "start_date": _time(f"the beginning, {DEFAULT_DAYS} days before the end by default"),
    "end_date": _time("the end, by default now") | {"example": "2026-11-30T12:00:00Z"},
}
_FILTERS: dict[str, dict[str, Any]] = {
    "account_id": {"schema": _TEXT, "description": "only this account's"},
    "key": {"schema": _TEXT, "description": "only what was done with the key of this ID"},
    "model": {"schema": _TEXT, "description": "only requests that asked for this model ID"},
    "format": {"schema": {"enum": ["json", "csv"]}, "description": "json by default"},
}
_GROUPS: dict[str, dict[str, Any]] = {
    "group_by": {
        "schema": _TEXT,
        "description": f"one row for each of these, separated by commas: {', '.join(BY)}",
        "example": "model,day",
    }
}
_PLACE: dict[str, dict[str, Any]] = {
    "limit": {"schema": {"type": "integer", "minimum": 1, "maximum": MAX_ENTRIES}},
    "after": {"schema": _TEXT, "description": "`next` of the page before"},
}
_CHUNKS: dict[str, dict[str, Any]] = {
    "chunks": {
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_CHUNKS},
        "description": "into how many parts the time is divided",
        "required": True,
        "example": 30,
    }
}
_STATISTICS = Text(
    _TAG,
    "What was used of a model, over time",
    f"{_SEES} Both dates are needed.",
    writes="UsageStatistics",
    query={name: {**more, "required": True} for name, more in _TIMES.items()} | _CHUNKS,
)

USAGE_TEXTS: dict[str, Text] = {
    "/v4/usage": Text(
        _TAG,
        "What was used",
        f"Sums by whole hours of UTC. {_SEES} With `format=csv` it is a table for spreadsheets.",
        writes="UsageSums",
        query=_TIMES | _GROUPS | _FILTERS,
    ),
    "/v4/usage/entries": Text(
        _TAG,
        "Single requests, the oldest first",
        f"{_SEES} `next` of a page is `after` of the next one, and null at the end; with "
        "`format=csv` it is in the header `x-next`.",
        writes="UsageEntries",
        query=_TIMES | _FILTERS | _PLACE,
    ),
    "/v4/models/{model}/usage-statistics": _STATISTICS,
    "/v4/model-deployments/{model}/usage-statistics": _STATISTICS,
}


def usage_schemas() -> dict[str, Any]:
    """Every schema by its name."""
    count: dict[str, Any] = {"type": "integer", "minimum": 0}
    counts = ("requests", "usage_unknown", "prompt_tokens", "cached_tokens", "completion_tokens")
    sums = dict.fromkeys((*counts, "total_tokens", "images"), count)
    row = {"type": "object", "required": list(sums), "properties": sums}
    points = {"date": _MOMENT} | dict.fromkeys(
        ("prompt_tokens", "response_tokens", "summary_tokens"), count
    )
    return {
        "UsageSums": _object(
            items={"type": "array", "items": row},
            total=row,
            group_by={"type": "array", "items": {"enum": list(BY)}},
            start_date=_MOMENT,
            end_date=_MOMENT,
        ),
        "UsageEntries": _object(
            items={"type": "array", "items": {"type": "object"}}, next={"type": ["string", "null"]}
        ),
        "UsageStatistics": _object(
            data={"type": "array", "items": _object(**points)},
            start_date=_MOMENT,
            end_date=_MOMENT,
        ),
    }


def _object(**fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(fields),
        "properties": fields,
        "additionalProperties": False,
    }
