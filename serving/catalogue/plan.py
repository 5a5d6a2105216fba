"""Plans which GPUs a selection of models needs, and says which models cannot run.

A model fits if each GPU of a replica holds its part of the weights, the LoRA slots, the overhead
and the cache of one sequence of full length, within the share of the GPU that vLLM uses. An adapter
uses its base's GPUs, a hosted model none.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from serving.catalogue import memory
from serving.catalogue.memory import BLOCK, GIB, Need
from serving.catalogue.shapes import Shape, UnknownShapeError
from serving.catalogue.spec import EngineSpec

# Memory of common GPUs in GiB, for suggestions.
COMMON_GPUS = (24, 40, 48, 80, 141)


@dataclass(frozen=True)
class ModelPlan:
    """The GPUs of one engine model.

    `gpu_memory_gib` is the memory of one GPU and `budget` the bytes of it that the engine may use;
    both are None if nobody said. `need` is None if the model runs on CPU, or if its sizes are not
    known; `unknown` then says why. Each of the `problems` says why it cannot run, and the fix.
    """

    spec: EngineSpec
    gpu_memory_gib: float | None
    need: Need | None = None
    budget: int | None = None
    unknown: str | None = None
    problems: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.spec.gpus_per_replica

    @property
    def total_gpus(self) -> int:
        return self.gpus * self.spec.replicas

    @property
    def full_contexts(self) -> float | None:
        """How many sequences of full length one replica's cache holds at once. None if that is not
        known, or if the model has no cache."""
        if self.need is None or self.budget is None or not self.need.kv_per_token:
            return None
        return self.need.tokens_in(self.budget) / self.need.context


@dataclass(frozen=True)
class Plan:
    """The plan of all deployed engine models."""

    models: tuple[ModelPlan, ...]

    @property
    def fits(self) -> bool:
        return not any(model.problems for model in self.models)

    @property
    def gpus(self) -> dict[float | None, int]:
        """How many GPUs all replicas take, by a GPU's memory in GiB, smallest first; None stands
        for GPUs whose memory nobody said."""
        count: Counter[float | None] = Counter()
        for model in self.models:
            if model.total_gpus:
                count[model.gpu_memory_gib] += model.total_gpus
        return dict(sorted(count.items(), key=lambda item: item[0] or 0))


def plan(engines: Iterable[EngineSpec], gpu_memory_gib: float | None = None) -> Plan:
    """Plan these models, on GPUs of this memory or, without it, each on its own kind."""
    return Plan(tuple(plan_model(spec, gpu_memory_gib or spec.gpu_memory_gib) for spec in engines))


def plan_model(spec: EngineSpec, gpu_memory_gib: float | None) -> ModelPlan:
    """Plan one model on GPUs of this memory."""
    planned = ModelPlan(spec, gpu_memory_gib if spec.gpus_per_replica else None)
    if not spec.gpus_per_replica:
        with contextlib.suppress(UnknownShapeError):
            return replace(planned, problems=tuple(_impossible(spec, memory.shape(spec))))
        return planned
    if gpu_memory_gib is not None:
        planned = replace(planned, budget=int(gpu_memory_gib * GIB * memory.utilization(spec)))
    try:
        shape = memory.shape(spec)
    except UnknownShapeError as error:
        return replace(planned, unknown=str(error))
    if problems := tuple(_impossible(spec, shape)):
        return replace(planned, problems=problems)
    need = memory.need(spec, shape)
    planned = replace(planned, need=need)
    if planned.budget is None or need.total <= planned.budget:
        return planned
    return replace(planned, problems=(_too_large(planned, need, planned.budget, shape),))


def _impossible(spec: EngineSpec, shape: Shape) -> Iterator[str]:
    """Yield the problems that more memory would not solve."""
    wanted = spec.tensor_parallel * memory.pipeline_parallel(spec)
    if 0 < spec.gpus_per_replica < wanted:
        yield (
            f"gpus: {spec.gpus_per_replica} are fewer than the {wanted} it is spread over; "
            f"write `gpus: {wanted}` or leave it out"
        )
    if (why := memory.divides(shape, spec.tensor_parallel)) is not None:
        sizes = " or ".join(str(size) for size in _splits(spec, shape))
        yield f"tensor_parallel: cannot be {spec.tensor_parallel}: {why}; it can be {sizes}"
    stretched = any(
        memory.argument(spec, name) is not None for name in ("hf_overrides", "rope_scaling")
    )
    if shape.longest is not None and spec.context > shape.longest and not stretched:
        yield (
            f"context: {spec.context} is more than the {shape.longest} the model was made for; "
            f"write `context: {shape.longest}`"
        )


def _splits(spec: EngineSpec, shape: Shape) -> Iterable[int]:
    """Return over how many GPUs a replica may be spread."""
    return (1,) if spec.runtime == "transformers" else memory.possible_splits(shape)


def _too_large(planned: ModelPlan, need: Need, budget: int, shape: Shape) -> str:
    """Say in one sentence what does not fit, by how much, and what would fit."""
    spec, has = planned.spec, planned.gpu_memory_gib
    room = f"{budget / GIB:.1f} of the {has:g} GiB"
    fixes = []
    longest = need.tokens_in(budget) // BLOCK * BLOCK
    if longest >= BLOCK:
        what = (
            f"context: {spec.context} does not fit: it needs {need.total / GIB:.1f} GiB a GPU, and "
            f"{room} may be used"
        )
        fixes.append(f"the largest that fits is `context: {longest}`")
    else:
        what = (
            f"gpu_memory_gib: the model does not fit: without any cache it needs "
            f"{need.fixed / GIB:.1f} GiB a GPU, and {room} may be used"
        )
    for size in _splits(spec, shape):
        if size > spec.tensor_parallel and memory.need(spec, shape, size).total <= budget:
            fixes.append(f"`tensor_parallel: {size}` fits it as it is")
            break
    share = memory.utilization(spec)
    larger = [size for size in COMMON_GPUS if need.total <= size * GIB * share]
    if larger:
        fixes.append(f"so do GPUs of {larger[0]} GiB" if fixes else f"use GPUs of {larger[0]} GiB")
    if not fixes:
        fixes.append("give it more GPUs, or a quantised checkpoint")
    return f"{what}; {', '.join(fixes)}"
