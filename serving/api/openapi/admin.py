"""What the description says of the admin API, by method and path, and its schemas."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.api.admin import AccountChange, KeyChange, NewAccount, NewKey, Nothing, Rotation
from serving.api.openapi.describe import PAGES, Text
from serving.api.quota import QuotaChange

_TAG = "Accounts and keys"
_ACCOUNTS, _KEYS = "/v4/admin/accounts", "/v4/admin/keys"
_ACCOUNT, _KEY = f"{_ACCOUNTS}/{{model}}", f"{_KEYS}/{{model}}"
_PAGES: dict[str, dict[str, Any]] = {name: PAGES[name] for name in ("page", "limit")}
_OF_ACCOUNT: dict[str, dict[str, Any]] = {
    "account_id": {"schema": {"type": "string"}, "description": "only the keys of this account"}
}
_ONCE = "The answer has the key's text in `key`; it is shown here and never again."
_LIMITS = (
    "`models` and `endpoints` are lists of IDs and paths in which `*` stands for any characters, "
    "`networks` of addresses as `10.0.0.0/8`, `priorities` of `interactive` and `batch`."
)
_QUOTA = (
    "`quota` has the limits on what is used; `used`, in the answer about one account or key, is "
    "what has been used of its budgets. Money is a text."
)

ADMIN_TEXTS: dict[tuple[str, str], Text] = {
    ("GET", _ACCOUNTS): Text(_TAG, "The accounts, in pages", writes="AccountPage", query=_PAGES),
    ("POST", _ACCOUNTS): Text(
        _TAG,
        "Make an account",
        "`enforcement` says what happens to a completion of the account's keys that does not name "
        "the account: `off`, `warn`, `enforce`; null: the key's account will do. `weight` is the "
        "account's share of an engine's turns where requests wait, as a multiple of others' (null: "
        f"1). {_QUOTA}",
        writes="Account",
        examples={
            "an account": {"id": "acme", "name": "Acme, Inc."},
            "limited": {
                "id": "umbrella",
                "quota": {"requests_per_minute": 600, "cost_per_month": "25.00"},
            },
        },
    ),
    ("GET", _ACCOUNT): Text(_TAG, "One account", writes="Account"),
    ("PATCH", _ACCOUNT): Text(
        _TAG,
        "Change an account",
        f"The keys of a disabled account are refused. {_QUOTA}",
        writes="Account",
        examples={
            "disable it": {"disabled": True},
            "ask for account IDs": {"enforcement": "warn"},
            "more turns than others": {"weight": 4},
            "limit it": {"quota": {"tokens_per_day": 1_000_000, "requests_in_flight": None}},
        },
    ),
    ("GET", _KEYS): Text(
        _TAG,
        "The keys, the newest first, in pages",
        "Those that are revoked are among them. `last_used_at` is good to the hour.",
        writes="KeyPage",
        query=_PAGES | _OF_ACCOUNT,
    ),
    ("POST", _KEYS): Text(
        _TAG,
        "Make a key",
        f"{_ONCE} All routers know it within two seconds. A key without an account may use any. "
        f"The role `read` takes GET only, `admin` these endpoints too. {_LIMITS} {_QUOTA}",
        writes="NewKeyAnswer",
        examples={
            "any": {"name": "batch jobs"},
            "limited": {
                "name": "the website",
                "models": ["tiny-*"],
                "endpoints": ["/v1/chat/completions", "/v1/models*"],
                "networks": ["10.0.0.0/8", "::1"],
                "expires_at": "2099-01-31T00:00:00Z",
            },
        },
    ),
    ("GET", _KEY): Text(_TAG, "One key", writes="Key"),
    ("PATCH", _KEY): Text(
        _TAG,
        "Change a key",
        f"Null takes a limit away. {_LIMITS} {_QUOTA}",
        writes="Key",
        examples={"let it end": {"expires_at": "2099-01-31T00:00:00Z", "models": None}},
    ),
    ("POST", f"{_KEY}/rotate"): Text(
        _TAG,
        "Give a key a new secret",
        f"The old one is good for `overlap_s` seconds more. {_ONCE}",
        writes="NewKeyAnswer",
        examples={"within an hour": {"overlap_s": 3600}},
    ),
    ("POST", f"{_KEY}/revoke"): Text(
        _TAG,
        "Revoke a key, for ever",
        "All routers refuse it within two seconds.",
        writes="Key",
        examples={"at once": {}},
    ),
    ("GET", "/v4/admin/audit"): Text(
        _TAG,
        "What was done here, the newest first, in pages",
        "`actor` is the ID of the key that asked for it.",
        writes="AuditPage",
        query=_PAGES,
    ),
}

_TEXT: dict[str, Any] = {"type": "string"}
_MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}
_MAYBE_MOMENT: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
_PATTERNS: dict[str, Any] = {"type": ["array", "null"], "items": _TEXT}
_MODE: dict[str, Any] = {"enum": ["off", "warn", "enforce", None]}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_QUOTA_FIELDS: dict[str, Any] = {
    "type": ["object", "null"],
    "properties": {
        **{
            name: _TEXT if name.startswith("cost") else _COUNT
            for name in QuotaChange.__struct_fields__
        },
        "without_store": {"enum": ["pass", "block"]},
    },
    "additionalProperties": False,
}
_USED: dict[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": {
        "type": "object",
        "required": ["used", "resets_at"],
        "properties": {"used": {"type": ["integer", "string"]}, "resets_at": _MOMENT},
    },
}
_ACCOUNT_FIELDS: dict[str, Any] = {
    "id": _TEXT,
    "name": _TEXT,
    "enforcement": _MODE,
    "weight": {"type": ["number", "null"]},
    "disabled": {"type": "boolean"},
    "quota": _QUOTA_FIELDS,
    "used": _USED,
    "created_at": _MOMENT,
}
_KEY_FIELDS: dict[str, Any] = {
    "id": _TEXT,
    "name": _TEXT,
    "account_id": {"type": ["string", "null"]},
    "role": {"enum": ["read", "use", "admin"]},
    "state": {"enum": ["active", "expired", "revoked"]},
    "models": _PATTERNS,
    "endpoints": _PATTERNS,
    "networks": _PATTERNS,
    "quota": _QUOTA_FIELDS,
    "used": _USED,
    "priorities": _PATTERNS,
    "created_at": _MOMENT,
    "expires_at": _MAYBE_MOMENT,
    "revoked_at": _MAYBE_MOMENT,
    "last_used_at": _MAYBE_MOMENT,
    "secrets": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"created_at": _MOMENT, "expires_at": _MAYBE_MOMENT},
        },
    },
}
_AUDIT_FIELDS: dict[str, Any] = {
    "number": {"type": "integer"},
    "at": _MOMENT,
    "actor": _TEXT,
    "action": _TEXT,
    "subject": _TEXT,
    "request_id": _TEXT,
    "detail": {"type": "object"},
}


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(fields),
        "properties": fields,
        "additionalProperties": False,
    }


def _page(item: dict[str, Any]) -> dict[str, Any]:
    counts = ("current_page", "items_per_page", "total_item_count")
    number = {"type": "integer"}
    items = {"items": {"type": "array", "items": item}}
    return _object({**items, **dict.fromkeys(counts, number)})


def admin_schemas(ref: str) -> dict[str, Any]:
    """Every schema by its name. `ref` stands before the name of one in a reference."""
    _, read = msgspec.json.schema_components(
        [NewAccount, AccountChange, NewKey, KeyChange, Rotation, Nothing],
        ref_template=ref + "{name}",
    )
    return {
        **read,
        "Account": _object(_ACCOUNT_FIELDS),
        "AccountPage": _page({"$ref": f"{ref}Account"}),
        "Key": _object(_KEY_FIELDS),
        "KeyPage": _page({"$ref": f"{ref}Key"}),
        "NewKeyAnswer": _object({**_KEY_FIELDS, "key": _TEXT}),
        "AuditPage": _page(_object(_AUDIT_FIELDS)),
    }
