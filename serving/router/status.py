"""What the fleet looks like from here, for people and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving.catalogue.spec import EngineSpec, UpstreamSpec
from serving.router.fleet import Fleet, Replica
from serving.router.resolve import Resolver, Route
from serving.wire.entry import Entry


def fleet_status(resolver: Resolver, fleet: Fleet) -> list[dict[str, Any]]:
    """One entry per model ID. An adapter's and an alias's replicas are those of its engine."""
    return [_model_status(name, resolver.resolve(name), fleet) for name in resolver.ids]


def fleet_ready(resolver: Resolver, fleet: Fleet) -> tuple[bool, dict[str, Any]]:
    """Whether every engine model has a replica, or may have none, and how many each ID has."""
    models = {}
    for name in resolver.ids:
        engine = resolver.resolve(name).engine
        count = fleet.ready(engine.id)
        models[name] = {"ready": count > 0 or may_sleep(engine), "replicas": count}
    ready = all(model["ready"] for model in models.values())
    return ready, {"ready": ready, "models": models}


def may_sleep(engine: EngineSpec | UpstreamSpec) -> bool:
    """Whether nothing is wrong when the model has no replica here."""
    return isinstance(engine, EngineSpec) and engine.fewest_replicas == 0


def scrape_targets(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Targets in the form of Prometheus' `http_sd_config`
    (prometheus.io/docs/prometheus/latest/http_sd)."""
    return [
        {
            "targets": [entry.ops],
            "labels": {"component": entry.kind, "model": entry.model, "replica": entry.id},
        }
        for entry in entries
    ]


def _model_status(name: str, route: Route, fleet: Fleet) -> dict[str, Any]:
    links = fleet.links(route.engine.id)
    kinds = {"base": "engine"}
    kind = "alias" if name != route.model else kinds.get(route.kind, route.kind)
    base = {"alias": route.model, "adapter": route.engine.id}.get(kind)
    return {
        "id": name,
        "kind": kind,
        "base": base,
        "ready": any(link.up for link in links) or may_sleep(route.engine),
        "in_flight": sum(link.busy for link in links),
        "replicas": [_replica_status(link) for link in links],
    }


def _replica_status(link: Replica) -> dict[str, Any]:
    return {
        "id": link.replica,
        "address": f"{link.address[0]}:{link.address[1]}",
        "state": link.state,
        "in_flight": link.busy,
        "running": link.load.running,
        "waiting": link.load.waiting,
        "adapters": list(link.load.adapters),
    }
