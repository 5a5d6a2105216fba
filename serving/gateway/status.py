"""What the fleet looks like from here, for people and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving.gateway.fleet import Entry, Fleet
from serving.gateway.link import ReplicaLink
from serving.gateway.resolve import Resolver, Route


def fleet_status(resolver: Resolver, fleet: Fleet) -> list[dict[str, Any]]:
    """One entry per model ID. An adapter's and an alias's replicas are those of its engine."""
    return [_model_status(name, resolver.resolve(name), fleet) for name in resolver.ids]


def fleet_ready(resolver: Resolver, fleet: Fleet) -> tuple[bool, dict[str, Any]]:
    """Whether every engine model has a replica, and how many each ID has."""
    models = {
        name: {"ready": count > 0, "replicas": count}
        for name in resolver.ids
        for count in [fleet.ready(resolver.resolve(name).engine.id)]
    }
    ready = all(model["ready"] for model in models.values())
    return ready, {"ready": ready, "models": models}


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
    kind = "alias" if name != route.model else "engine" if route.adapter is None else "adapter"
    base = None if kind == "engine" else route.model if kind == "alias" else route.engine.id
    return {
        "id": name,
        "kind": kind,
        "base": base,
        "ready": fleet.ready(route.engine.id) > 0,
        "in_flight": sum(link.busy for link in links),
        "replicas": [_replica_status(link) for link in links],
    }


def _replica_status(link: ReplicaLink) -> dict[str, Any]:
    state = "ready" if link.up else "draining" if link.connected else "connecting"
    return {
        "id": link.replica,
        "address": f"{link.address[0]}:{link.address[1]}",
        "state": state,
        "in_flight": link.busy,
        "running": link.load.running,
        "waiting": link.load.waiting,
        "adapters": list(link.load.adapters),
    }
