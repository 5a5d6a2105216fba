"""How much an account, a key or a model may be used: the limits on requests, tokens and money."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from serving.catalogue.base import Spec

Count = Annotated[int, Field(ge=0, le=10**15)]
Money = Annotated[Decimal, Field(ge=0, le=1_000_000_000, decimal_places=6)]

RATES = ("requests_per_minute", "tokens_per_minute")
BUDGETS = ("tokens_per_day", "tokens_per_month", "cost_per_day", "cost_per_month")
LIMITS = (*RATES, "requests_in_flight", *BUDGETS)


class Quota(Spec):
    """The limits of one account, key or model; None: there is none of that kind.

    Which models, endpoints and networks a key may reach is another thing (`KeyLimits`).
    """

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    requests_in_flight: Count | None = None
    tokens_per_day: Count | None = None
    tokens_per_month: Count | None = None
    cost_per_day: Money | None = None
    cost_per_month: Money | None = None
    without_store: Literal["pass", "block"] = Field(
        default="pass",
        description="requests beyond what a router has leased while the store is away: `pass` "
        "counts them and charges them afterwards, `block` refuses them",
    )

    @property
    def limited(self) -> bool:
        """True if there is a limit."""
        return any(getattr(self, name) is not None for name in LIMITS)

    @property
    def stored(self) -> dict[str, Any]:
        """What is set, by name, as JSON has it; money as a text."""
        return self.model_dump(mode="json", exclude_defaults=True)
