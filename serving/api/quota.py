"""How much an account or a key may use, as the admin API has it.

Fields that are left out stay as they are, null takes a limit away. Money is a decimal number in a
text, in the currency of the models' prices, so that no program on the way rounds it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0, le=10**15)]
Money = Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$", examples=["25.00"])]


class QuotaChange(Struct, forbid_unknown_fields=True):
    """Limits on what is used. `without_store` says what happens to requests beyond what a router
    has leased while the store is away: `pass`, and charge them afterwards, or `block`."""

    requests_per_minute: Count | UnsetType | None = UNSET
    tokens_per_minute: Count | UnsetType | None = UNSET
    requests_in_flight: Count | UnsetType | None = UNSET
    tokens_per_day: Count | UnsetType | None = UNSET
    tokens_per_month: Count | UnsetType | None = UNSET
    cost_per_day: Money | UnsetType | None = UNSET
    cost_per_month: Money | UnsetType | None = UNSET
    without_store: Literal["pass", "block"] | UnsetType = UNSET

    def given(self) -> dict[str, Any]:
        """The fields that are there, by name."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in fields.items() if value is not UNSET}
