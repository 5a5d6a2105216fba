"""Which worker groups a models file needs on Kubernetes: equal pods, each for one replica.

A pod has the GPUs of one replica and nothing beside it, so a lost pod is one lost replica, and what
Kubernetes counts is what `serving plan` counts. Models whose replicas take as many GPUs of the same
memory share a group, since KubeRay changes the groups of a running cluster only at the end of their
list: a model that comes or goes must not change the list. A model may have a group of its own, for
tolerations or a priority that others have not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.catalogue import memory
from serving.catalogue.memory import GIB
from serving.catalogue.plan import ModelPlan, Plan
from serving.catalogue.shapes import UnknownShapeError
from serving.catalogue.spec import EngineSpec

ROUTER_GROUP = "router"
# KubeRay puts the name into those of pods and Kubernetes' labels.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")
# GiB of a pod's own memory, beside the weights: Ray's node, the replica and the engine server; and
# each process that drives a GPU, or computes on the CPU. Allowances, measured on no GPU.
POD_GIB, PROCESS_GIB = 4, 4
# GiB of a CPU engine whose sizes are not known.
UNKNOWN_GIB = 4


class GroupError(ValueError):
    """Models cannot be put into groups as asked; the message says which and why."""


@dataclass(frozen=True)
class Group:
    """Equal pods, each for one replica of one of `models`.

    `replicas` is how many run when all models are awake, `always` how many run in any case. `cpus`
    are what Ray counts; sizes are in GiB, `memory_gib` of the pod and `gpu_memory_gib` of one GPU.
    """

    name: str
    models: tuple[str, ...]
    replicas: int
    always: int
    gpus: int
    gpu_memory_gib: float | None
    cpus: float
    memory_gib: int


def group_models(
    planned: Plan, own: Mapping[str, str] | None = None, before: Sequence[Group] = ()
) -> tuple[Group, ...]:
    """The groups of a plan.

    Args:
        own: names of groups by model ID, for models that shall not share the group of their size.
        before: the groups of the last rendering. They keep their places, empty if need be, and new
            ones come last.

    Raises:
        GroupError: a name is none, or stands for models of different sizes; `own` names a model
            that is not deployed.
    """
    own = own or {}
    engines = {model.spec.id for model in planned.models}
    if strangers := sorted(own.keys() - engines):
        raise GroupError(f"no engine model is called '{strangers[0]}'")
    members: dict[str, list[ModelPlan]] = {}
    for model in planned.models:
        members.setdefault(own.get(model.spec.id) or _name(model), []).append(model)
    found = {name: _group(name, models) for name, models in members.items()}
    kept = [found.pop(old.name) if old.name in found else _empty(old) for old in before]
    return (*kept, *found.values())


def _group(name: str, models: Sequence[ModelPlan]) -> Group:
    if not NAME.fullmatch(name) or name in (ROUTER_GROUP, "headgroup"):
        raise GroupError(
            f"'{name}' is no name for a group: lower-case letters, digits and '-', at most 30, "
            f"and neither '{ROUTER_GROUP}' nor 'headgroup'"
        )
    sizes = {(model.gpus, model.gpu_memory_gib) for model in models}
    if len(sizes) > 1:
        ids = " and ".join(f"'{model.spec.id}'" for model in models)
        raise GroupError(
            f"group '{name}': {ids} need different GPUs; give them groups of their own"
        )
    ((gpus, gpu_memory_gib),) = sizes
    return Group(
        name,
        tuple(model.spec.id for model in models),
        replicas=sum(model.spec.replicas for model in models),
        always=sum(model.spec.fewest_replicas for model in models),
        gpus=gpus,
        gpu_memory_gib=gpu_memory_gib,
        cpus=max(model.spec.cpus for model in models),
        memory_gib=max(map(_memory_gib, models)),
    )


def _empty(old: Group) -> Group:
    return Group(old.name, (), 0, 0, old.gpus, old.gpu_memory_gib, old.cpus, old.memory_gib)


def _name(model: ModelPlan) -> str:
    """As `gpu-2x80` (two GPUs of 80 GiB), or `cpu-500m` (half a CPU)."""
    if not model.gpus:
        cpus = model.spec.cpus
        return f"cpu-{cpus:g}" if cpus == int(cpus) else f"cpu-{round(cpus * 1000)}m"
    if model.gpu_memory_gib is None:
        return f"gpu-{model.gpus}"
    return f"gpu-{model.gpus}x{model.gpu_memory_gib:g}".replace(".", "-")


def _memory_gib(model: ModelPlan) -> int:
    """Of the pod. Of a GPU's weights one GPU's part counts: it passes through the host's memory."""
    spec = model.spec
    if not spec.gpus_per_replica:
        return math.ceil(POD_GIB + PROCESS_GIB + _cpu_weights_gib(spec) + _cpu_cache_gib(spec))
    weights = None if model.need is None else model.need.weights / GIB
    if weights is None:
        weights = model.gpu_memory_gib or 0
    return math.ceil(POD_GIB + PROCESS_GIB * model.gpus + weights)


def _cpu_weights_gib(spec: EngineSpec) -> float:
    try:
        return memory.need(spec, memory.shape(spec)).weights / GIB
    except UnknownShapeError:
        return UNKNOWN_GIB


def _cpu_cache_gib(spec: EngineSpec) -> float:
    """vLLM's own setting, in GiB; it takes 4 where there is none."""
    try:
        return float(spec.env.get("VLLM_CPU_KVCACHE_SPACE", 4))
    except ValueError:
        return 4
