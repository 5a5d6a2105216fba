"""A models file as the values of the Helm chart: the file itself, and what is computed from it.

The chart's templates compute nothing about models. They check by `digest` that the file is the one
that the rest was computed from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from serving.catalogue.catalogue import Catalogue
from serving.catalogue.grace import grace
from serving.catalogue.groups import Group
from serving.catalogue.names import engine_app_name
from serving.catalogue.spec import EngineSpec, UpstreamSpec

Values = dict[str, Any]


class ValuesError(ValueError):
    """A models file, or values of before, that the chart cannot use; the message says why."""


def chart_values(text: str, catalogue: Catalogue, groups: Sequence[Group]) -> Values:
    """The values of a models file, of which `text` is the content.

    Raises:
        ValuesError: weights are relative to the file, which no pod has; or nothing is deployed.
    """
    if not catalogue.deployed:
        raise ValuesError("names no model to serve; add one to `models:`")
    group_of = {model: group.name for group in groups for model in group.models}
    first = catalogue.deployed[0]
    hosted = {spec.provider for spec in catalogue.upstreams}
    return {
        "file": text,
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "drainSeconds": catalogue.drain_s,
        "times": _times(catalogue),
        "router": {"replicas": catalogue.router.replicas, "cpus": catalogue.router.cpus},
        "groups": [_group(group) for group in groups],
        "engines": [_engine(spec, group_of[spec.id]) for spec in catalogue.engines],
        "repositories": repositories(catalogue),
        "providers": [
            {"name": name, "env": found.api_key_env or "", "file": found.api_key_file or ""}
            for name, found in catalogue.providers.items()
            if name in hosted
        ],
        "fetchesImages": bool(catalogue.images.allowed_hosts)
        and any(spec.vision for spec in catalogue.engines),
        "first": {"id": first.id, "completes": _completes(first)},
    }


def _times(catalogue: Catalogue) -> Values:
    found = grace(catalogue)
    nodes = {"router": found.router_node, "engine": found.engine_node}
    return {
        name: {"drain": node.drain_s, "termination": node.termination_s}
        for name, node in nodes.items()
    }


def repositories(catalogue: Catalogue) -> list[Values]:
    """What engines fetch from Hugging Face, unless it is in their cache."""
    found = {
        (spec.weights, spec.revision or ""): None
        for spec in (*catalogue.engines, *catalogue.adapters)
        if not spec.weights.startswith("/")
    }
    return [{"id": name, "revision": revision} for name, revision in found]


def groups_of(values: Mapping[str, Any]) -> tuple[Group, ...]:
    """The groups in values that were rendered before.

    Raises:
        ValuesError: there are none.
    """
    try:
        return tuple(map(_read, values["models"]["groups"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValuesError(f"these are no values of `serving render-values`: {error}") from None


def _group(group: Group) -> Values:
    # Helm takes keys without a value away; 0 stands for a memory that nobody said.
    return {
        "name": group.name,
        "models": list(group.models),
        "replicas": group.replicas,
        "always": group.always,
        "gpus": group.gpus,
        "gpuMemoryGiB": group.gpu_memory_gib or 0,
        "cpus": group.cpus,
        "memoryGiB": group.memory_gib,
    }


def _read(item: Mapping[str, Any]) -> Group:
    return Group(
        name=item["name"],
        models=tuple(item["models"]),
        replicas=item["replicas"],
        always=item["always"],
        gpus=item["gpus"],
        gpu_memory_gib=item["gpuMemoryGiB"] or None,
        cpus=item["cpus"],
        memory_gib=item["memoryGiB"],
    )


def _engine(spec: EngineSpec, group: str) -> Values:
    return {"id": spec.id, "app": engine_app_name(spec.id), "group": group}


def _completes(spec: object) -> bool:
    """Whether the model answers prompts, so that a test may complete with it."""
    return not isinstance(spec, EngineSpec | UpstreamSpec) or spec.task == "generate"
