"""From the model ID in a request to the route that serves it.

An alias and the ID of a deployed model have a route. The ID of a retired model, or of one that is
known but not deployed, is refused with what to do about it; any other ID with the nearest IDs.
Everything is looked up in tables: an ID is not parsed, because an adapter's does not reliably
contain its base's. An alias may take the ID of a retired model, but not that of a deployed one.

`VENDOR/ID`, which clients of `/v5` write, stands for the ID where no model is called so: a hosted
model's vendor is its provider, the others' is one of `OWN_VENDORS`.
"""

from __future__ import annotations

import difflib
from bisect import bisect
from dataclasses import dataclass

from serving.accounts.caller import Caller
from serving.api.asked import Ability
from serving.api.excerpt import excerpt
from serving.catalogue.advice import alias_retired, deploy
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.spec import AdapterSpec, AnySpec, EngineSpec, RetiredSpec, UpstreamSpec
from serving.errors import NotDeployed, RetiredModel, UnknownModel
from serving.wire.messages import AdapterRef, PromptFormat

SUGGESTIONS = 3
# An unknown ID is compared with some engine models and with so many IDs before and after it in
# alphabetical order, which takes a millisecond; with all of 100,000 IDs it would take seconds.
NEIGHBOURS = 32
# What scale-gp-beta calls those who run open models.
OWN_VENDORS = frozenset(("llmengine", "launch", "model_zoo"))
# What the providers of each dialect have for text besides chats, in which Create Completion and the
# old completions are asked too. `serving/upstream/apis.py` sends it.
HOSTED: dict[str, frozenset[Ability]] = {
    "openai": frozenset({Ability.RESPONSES}),
    "anthropic": frozenset({Ability.MESSAGES}),
    "gemini": frozenset(),
}


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests for one model ID go.

    `model` is the model that answers (an alias's target), `engine` what runs it: an engine model's
    replicas or a provider. `adapter` is the LoRA adapter to apply, `prompt_format` how its prompts
    differ from its base's. `dialect` is that of a hosted model's provider.
    """

    model: str
    engine: EngineSpec | UpstreamSpec
    adapter: AdapterRef | None = None
    prompt_format: PromptFormat | None = None
    dialect: str = ""

    @property
    def kind(self) -> str:
        """The catalogue's word for the model: `engine`, `adapter` or `upstream`."""
        return "adapter" if self.adapter is not None else self.engine.kind

    @property
    def version(self) -> str:
        """Which files answer: the revision of the adapter, or of the model; empty: none is set."""
        if self.adapter is not None:
            return self.adapter.revision or ""
        return "" if isinstance(self.engine, UpstreamSpec) else self.engine.revision or ""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What the model can be asked to do."""
        engine = self.engine
        found, generates = {Ability(engine.task)}, engine.task == "generate"
        if isinstance(engine, UpstreamSpec):
            found |= HOSTED[self.dialect] if generates else set()
            if engine.reasoning:
                found.add(Ability.REASON)
        elif engine.runtime == "vllm":
            found.add(Ability.TOKENIZE)
            if generates:
                found |= {Ability.MESSAGES, Ability.RESPONSES}
            if engine.task == "embed":
                # vLLM scores two texts by the cosine of their vectors.
                found.add(Ability.SCORE)
        if engine.vision:
            found.add(Ability.SEE)
        return frozenset(found)

    @property
    def hosted(self) -> bool:
        """True for a provider's model."""
        return isinstance(self.engine, UpstreamSpec)

    @property
    def chat(self) -> bool:
        """True for chat models."""
        if isinstance(self.engine, UpstreamSpec):
            return self.engine.task == "generate"
        own = self.prompt_format.style if self.prompt_format else None
        return (own or self.engine.prompt_style) == "chat"


class Resolver:
    """All routes of a catalogue. `engines` are its engine models by ID, deployed or not."""

    def __init__(self, catalogue: Catalogue) -> None:
        engines = {spec.id: spec for spec in catalogue.engines}
        self._routes: dict[str, Route] = {}
        self._others: dict[str, AnySpec] = {}
        for spec in catalogue.models:
            if not spec.deployed or isinstance(spec, RetiredSpec):
                self._others[spec.id] = spec
            elif isinstance(spec, AdapterSpec):
                ref = AdapterRef(spec.id, spec.weights, spec.revision)
                own = None
                if spec.prompt_style is not None or spec.chat_template is not None:
                    own = PromptFormat(spec.prompt_style, spec.chat_template)
                self._routes[spec.id] = Route(spec.id, engines[spec.base], ref, own)
            elif isinstance(spec, UpstreamSpec):
                dialect = catalogue.providers[spec.provider].dialect
                self._routes[spec.id] = Route(spec.id, spec, dialect=dialect)
            else:
                self._routes[spec.id] = Route(spec.id, spec)
        for alias, target in catalogue.aliases.items():
            self._routes[alias] = self._routes[target]
        self._engine_ids = list(engines)
        self.engines = {spec.id: spec for spec in catalogue.models if isinstance(spec, EngineSpec)}
        known = (*self._routes, *self._others)
        self._sorted = sorted((name.lower(), name) for name in dict.fromkeys(known))

    @property
    def ids(self) -> list[str]:
        """Every ID a request may name, in catalogue order."""
        return list(self._routes)

    @property
    def others(self) -> list[AnySpec]:
        """The known models without a route here: not deployed, or retired."""
        return [spec for name, spec in self._others.items() if name not in self._routes]

    def resolve(self, model_id: str, caller: Caller) -> Route:
        """The route of an ID for one caller. It never waits.

        Raises:
            Forbidden: the caller's key may not use this ID, whether or not there is such a model.
            RetiredModel: with the date, the successor and how to alias it.
            NotDeployed: with how to deploy it.
            UnknownModel: with the closest IDs in its message.
        """
        if caller.limits.models is None:
            return self._resolve(model_id, caller)
        try:
            route = self._resolve(model_id, caller)
        except (RetiredModel, NotDeployed, UnknownModel):
            if caller.may_use(model_id):
                raise
            raise caller.no_model(model_id) from None
        if not caller.may_use(model_id, route.model):
            raise caller.no_model(model_id)
        return route

    def ids_for(self, caller: Caller) -> list[str]:
        """Every ID that a caller may name, in catalogue order."""
        routes = self._routes
        return [name for name, route in routes.items() if caller.may_use(name, route.model)]

    def _resolve(self, model_id: str, caller: Caller) -> Route:
        route = self._routes.get(model_id)
        if route is not None:
            return route
        if (spec := self._others.get(model_id)) is not None:
            raise self._without_route(spec)
        vendor, _, rest = model_id.partition("/")
        if (route := self._routes.get(rest)) is not None and _is_of(vendor, route.engine):
            return route
        if route is None and (spec := self._others.get(rest)) is not None and _is_of(vendor, spec):
            raise self._without_route(spec)
        hint = ", ".join(f"'{name}'" for name in self._nearest(model_id, caller))
        raise UnknownModel(
            f"unknown model '{excerpt(model_id)}'"
            + (f"; the closest IDs are {hint}" if hint else "; GET /v1/models lists every ID"),
            param="model",
        )

    def _without_route(self, spec: AnySpec) -> RetiredModel | NotDeployed:
        if isinstance(spec, RetiredSpec):
            known = spec.successor in self._routes or spec.successor in self._others
            on = "on" if len(spec.retired_on) == len("YYYY-MM-DD") else "in"
            successor = f"; its successor is '{spec.successor}'" if spec.successor else ""
            fix = alias_retired(spec.id, spec.provider, spec.successor, known=known)
            return RetiredModel(
                f"model '{spec.id}' was retired by its provider ({spec.provider}) {on} "
                f"{spec.retired_on}{successor}; {fix}",
                param="model",
            )
        base = spec.base if isinstance(spec, AdapterSpec) and spec.base in self._others else None
        return NotDeployed(
            f"model '{spec.id}' is known but not deployed here; to deploy it, "
            f"{deploy(spec.id, base)}",
            param="model",
        )

    def _nearest(self, model_id: str, caller: Caller) -> list[str]:
        asked = model_id.lower()
        at = bisect(self._sorted, (asked,))
        folded = {known.lower(): known for known in self._engine_ids[: 2 * NEIGHBOURS]}
        folded |= dict(self._sorted[max(0, at - NEIGHBOURS) : at + NEIGHBOURS])
        if caller.limits.models is not None:
            folded = {low: name for low, name in folded.items() if caller.may_use(name)}
        near = difflib.get_close_matches(asked, folded, SUGGESTIONS, cutoff=0.4)
        return [folded[name] for name in near]


def _is_of(vendor: str, spec: AnySpec) -> bool:
    if isinstance(spec, UpstreamSpec | RetiredSpec):
        return vendor == spec.provider
    return vendor in OWN_VENDORS
