"""How much of its budgets an account or a key has used, for whoever manages them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from serving.accounts.quota.period import period_of
from serving.accounts.quota.shelf import pool_of
from serving.catalogue.price import shown
from serving.catalogue.quota import BUDGETS
from serving.catalogue.rate import SECOND
from serving.store.quota_leases import QuotaLeases


async def budgets_used(
    leases: QuotaLeases, kind: str, name: str, quota: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What all routers have used of each budget in its present period, good to about a second, and
    when it begins anew. Raises `StoreAway`."""
    now = time.time_ns()
    periods = {limit: period_of(limit, now) for limit in BUDGETS if (quota or {}).get(limit)}
    if not periods:
        return {}
    begins = {pool_of(kind, name, each): at.begins // SECOND for each, at in periods.items()}
    used = await leases.used(begins)
    return {
        limit: {
            "used": _amount(limit, used[pool_of(kind, name, limit)]),
            "resets_at": datetime.fromtimestamp(period.ends // SECOND, UTC).isoformat(),
        }
        for limit, period in periods.items()
    }


def _amount(limit: str, used: int) -> int | str:
    return shown(used) if limit.startswith("cost") else used
