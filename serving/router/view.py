"""What a router shows of itself and of the fleet, for people and for Prometheus."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Any

from serving.accounts.caller import ANYONE, Caller
from serving.api.asked import Ability
from serving.api.models import ModelEntry
from serving.api.openapi.description import Description
from serving.catalogue.spec import AdapterSpec, AnySpec, EngineSpec, RetiredSpec, UpstreamSpec
from serving.errors import Forbidden
from serving.observability.router_metrics import RouterMetrics
from serving.router.fleet import Fleet, Replica
from serving.router.resolve import Resolver, Route
from serving.wire.address import host_port


class RouterView:
    """See `serving.api.pages.View`. `resolver` is replaced when the catalogue changes. It is for
    whoever may use every model; others have a view of their own (`seen_by`)."""

    def __init__(
        self,
        router: str,
        resolver: Resolver,
        fleet: Fleet,
        metrics: RouterMetrics,
        description: Description,
    ) -> None:
        self.router = router
        self.started = int(time.time())
        self.resolver = resolver
        self._fleet = fleet
        self._metrics = metrics
        self._description = description
        self._caller = ANYONE
        # Load balancers are to leave, since this router does.
        self.leaving = False

    def seen_by(self, caller: Caller) -> RouterView:
        """What one caller may see: of the models, those that its key may use."""
        if caller.limits.models is None:
            return self
        view = copy.copy(self)
        view._caller = caller
        return view

    def entries(self, *, everything: bool) -> list[ModelEntry]:
        """See `View.entries`."""
        found = [self.entry(name) for name in self._ids]
        if everything:
            others = [spec for spec in self.resolver.others if self._caller.may_use(spec.id)]
            found += [_known(spec, self.resolver) for spec in others]
        return found

    def entry(self, model_id: str) -> ModelEntry:
        """See `View.entry`."""
        route = self._route(model_id)
        engine, kind = route.engine, _kind(model_id, route)
        replicas = self._fleet.ready(engine.id)
        return ModelEntry(
            id=model_id,
            kind=kind,
            deployed=True,
            root=route.model,
            parent=engine.id if kind == "adapter" else None,
            context=engine.context,
            chat=route.chat,
            embeds=Ability.EMBED in route.abilities,
            ranks=isinstance(engine, EngineSpec) and engine.task == "score",
            transcribes=Ability.TRANSCRIBE in route.abilities,
            replicas=replicas,
            ready=replicas > 0 or _may_sleep(engine),
            runtime=engine.runtime if isinstance(engine, EngineSpec) else "hosted",
            more=_more(engine),
        )

    def status(self) -> list[dict[str, Any]]:
        """See `View.status`. An adapter's and an alias's replicas are those of its engine."""
        codes = {entry.id: entry.code for entry in self._fleet.listed}
        return [self._model_status(name, codes) for name in self._ids]

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """See `View.readiness`."""
        models = {}
        for name in self._ids:
            engine = self._route(name).engine
            count = self._fleet.ready(engine.id)
            models[name] = {"ready": count > 0 or _may_sleep(engine), "replicas": count}
        ready = not self.leaving and all(model["ready"] for model in models.values())
        page: dict[str, Any] = {"ready": ready, "models": models}
        return ready, page | ({"leaving": True} if self.leaving else {})

    def targets(self) -> list[dict[str, Any]]:
        """See `View.targets` (prometheus.io/docs/prometheus/latest/http_sd)."""
        self._check_all()
        return [
            {
                "targets": [entry.ops],
                "labels": {"component": entry.kind, "model": entry.model, "replica": entry.id},
            }
            for entry in self._fleet.listed
        ]

    def metrics(self) -> bytes:
        """See `View.metrics`."""
        self._check_all()
        return self._metrics.text()

    def openapi(self) -> bytes:
        """See `View.openapi`."""
        return self._description.json

    def docs(self) -> bytes:
        """See `View.docs`."""
        return self._description.html

    def _route(self, model_id: str) -> Route:
        return self.resolver.resolve(model_id, self._caller)

    @property
    def _ids(self) -> list[str]:
        return self.resolver.ids_for(self._caller)

    def _check_all(self) -> None:
        """Raises `Forbidden` if the caller may not know of every model."""
        if self._caller.limits.models is not None:
            raise Forbidden("this API key is for some models only, and this page names all")

    def _model_status(self, name: str, codes: Mapping[str, str]) -> dict[str, Any]:
        route = self._route(name)
        replicas = self._fleet.links(route.engine.id)
        kind = _kind(name, route)
        return {
            "id": name,
            "kind": kind,
            "base": {"alias": route.model, "adapter": route.engine.id}.get(kind),
            "ready": any(replica.up for replica in replicas) or _may_sleep(route.engine),
            "in_flight": sum(replica.busy for replica in replicas),
            "replicas": [_replica_status(replica, codes) for replica in replicas],
        }


def _kind(name: str, route: Route) -> str:
    return route.kind if name == route.model else "alias"


def _may_sleep(engine: EngineSpec | UpstreamSpec) -> bool:
    """True if the model may have no replica because it sleeps."""
    return isinstance(engine, EngineSpec) and engine.fewest_replicas == 0


def _more(spec: AnySpec) -> dict[str, object]:
    """What a model's entry says beside what all have."""
    match spec:
        case EngineSpec():
            return {"tool_parser": spec.tool_parser, "reasoning_parser": spec.reasoning_parser}
        case UpstreamSpec():
            return {"provider": spec.provider}
        case RetiredSpec():
            known = {"retired_on": spec.retired_on, "successor": spec.successor}
            return {"provider": spec.provider, **known}
    return {}


def _known(spec: AnySpec, resolver: Resolver) -> ModelEntry:
    """The entry of a model that is not deployed."""
    context = spec.context if isinstance(spec, EngineSpec | UpstreamSpec) else None
    more = _more(spec)
    parent, style = None, None
    if isinstance(spec, EngineSpec):
        style = spec.prompt_style
    elif isinstance(spec, AdapterSpec):
        parent, base = spec.base, resolver.engines.get(spec.base)
        context = base.context if base else None
        more = _more(base) if base else {}
        style = spec.prompt_style or (base.prompt_style if base else None)
    chat = style == "chat"
    task = spec.task if isinstance(spec, EngineSpec | UpstreamSpec) else "generate"
    return ModelEntry(
        *(spec.id, spec.kind, False, spec.id, parent, context, chat),
        embeds=task == "embed",
        ranks=task == "score",
        transcribes=task == "transcribe",
        more=more,
    )


def _replica_status(replica: Replica, codes: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": replica.replica,
        "address": host_port(*replica.address),
        "state": replica.state,
        "in_flight": replica.busy,
        "running": replica.load.running,
        "waiting": replica.load.waiting,
        "adapters": list(replica.load.adapters),
        "code": codes.get(replica.replica, ""),
    }
