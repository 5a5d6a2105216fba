"""From the model ID in a request to the route that serves it.

Order: exact ID of a model, alias, else 404 with the nearest IDs. Tables only; nothing is parsed
out of an ID, because a fine-tuned model's name does not reliably contain its base's.
"""

from __future__ import annotations

import difflib
from bisect import bisect
from dataclasses import dataclass

from serving.catalogue.spec import Catalogue, EngineSpec
from serving.engine.protocol import AdapterRef
from serving.errors import UnknownModel

SUGGESTIONS = 3
# Comparing an unknown ID with a hundred thousand others takes seconds; with the engine models and
# with so many before and after it in alphabetical order, a millisecond.
NEIGHBOURS = 32


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests for one model ID go.

    `model` is the model that answers (an alias's target), `engine` the engine model whose
    replicas run it, `adapter` the LoRA adapter to apply, `kind` is `base` or `adapter`.
    """

    model: str
    engine: EngineSpec
    adapter: AdapterRef | None
    kind: str


class Resolver:
    """All routes of a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        engines = {spec.id: spec for spec in catalogue.engines}
        self._routes: dict[str, Route] = {
            spec.id: Route(spec.id, spec, None, "base") for spec in catalogue.engines
        }
        for adapter in catalogue.adapters:
            ref = AdapterRef(adapter.id, adapter.weights)
            self._routes[adapter.id] = Route(adapter.id, engines[adapter.base], ref, "adapter")
        for alias, target in catalogue.aliases.items():
            self._routes[alias] = self._routes[target]
        self._engine_ids = list(engines)
        self._sorted = sorted((known.lower(), known) for known in self._routes)

    @property
    def ids(self) -> list[str]:
        """Every ID a request may name, in catalogue order."""
        return list(self._routes)

    def resolve(self, model_id: str) -> Route:
        """The route of an ID.

        Raises:
            UnknownModel: with the closest IDs in its message.
        """
        route = self._routes.get(model_id)
        if route is not None:
            return route
        hint = ", ".join(f"'{name}'" for name in self._nearest(model_id))
        raise UnknownModel(
            f"unknown model '{model_id}'"
            + (f"; the closest IDs are {hint}" if hint else "; GET /v1/models lists every ID"),
            param="model",
        )

    def _nearest(self, model_id: str) -> list[str]:
        asked = model_id.lower()
        at = bisect(self._sorted, (asked,))
        folded = {known.lower(): known for known in self._engine_ids[: 2 * NEIGHBOURS]}
        folded |= dict(self._sorted[max(0, at - NEIGHBOURS) : at + NEIGHBOURS])
        near = difflib.get_close_matches(asked, folded, SUGGESTIONS, cutoff=0.4)
        return [folded[name] for name in near]
