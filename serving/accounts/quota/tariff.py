"""What the catalogue says of each model ID for limits: the model that answers, its price, its own
quota, and how long a prompt can be."""

from __future__ import annotations

from dataclasses import dataclass

from serving.catalogue.catalogue import Catalogue
from serving.catalogue.price import Price
from serving.catalogue.quota import Quota
from serving.catalogue.spec import AdapterSpec


@dataclass(frozen=True, slots=True)
class Tariff:
    """One model. `context` is the longest prompt in tokens, None if nobody knows."""

    model: str
    price: Price | None = None
    quota: Quota | None = None
    context: int | None = None


# Of an ID that no model answers to.
NOTHING = Tariff("")


class Tariffs:
    """The tariff of each ID of a catalogue, aliases included. An adapter costs what its base does,
    if it has no price of its own."""

    def __init__(self, catalogue: Catalogue) -> None:
        bases = {spec.id: spec for spec in catalogue.engines}
        self._of: dict[str, Tariff] = {}
        for spec in catalogue.deployed:
            base = bases.get(spec.base) if isinstance(spec, AdapterSpec) else None
            price = spec.price or (base.price if base else None)
            context = base.context if base else getattr(spec, "context", None)
            self._of[spec.id] = Tariff(spec.id, price, spec.quota, context)
        for alias, target in catalogue.aliases.items():
            if target in self._of:
                self._of[alias] = self._of[target]

    @property
    def limited(self) -> bool:
        """True if a model has a quota."""
        return any(tariff.quota is not None and tariff.quota.limited for tariff in self.all)

    @property
    def all(self) -> list[Tariff]:
        """One for each ID."""
        return list(self._of.values())

    def of(self, model_id: str) -> Tariff:
        """The tariff of an ID; `VENDOR/ID` stands for the ID where no model is called so."""
        found = self._of.get(model_id)
        return found or self._of.get(model_id.partition("/")[2], NOTHING)
