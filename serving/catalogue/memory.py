"""The GPU memory that an engine model needs, computed from its config and its context.

Every size is in bytes, on one GPU of one replica:

    weights   parameters x bytes of the dtype / (tensor parallel x pipeline parallel)
    KV cache  context x 2 x layers x ceil(KV heads / tensor parallel) x head size x bytes
              (one sequence of full length; a sliding window is assumed to save nothing).
              An embedding model needs as much while it reads one input, an encoder (BERT) none.
    LoRA      slots x the two factors of every linear layer, at `max_rank`
    overhead  `OVERHEAD`

This is arithmetic and not a measurement. It is right to about a GiB.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.catalogue.shapes import Shape, shape_of
from serving.catalogue.spec import EngineSpec

GIB = 2**30

# Everything else on a GPU: the CUDA context and NCCL's buffers take about 0.5 GiB, the CUDA graphs
# about 0.5 GiB, and the activations of the largest step the rest. On GPUs below 70 GiB vLLM runs
# 2048 tokens a step, whose activations take some hundred MiB. On larger GPUs it runs 8192, which
# can take more than 1 GiB; the excess then comes out of the cache, which has room there.
OVERHEAD = int(1.5 * GIB)

# The share of a GPU that vLLM 0.32 uses by default (`gpu_memory_utilization`). The transformers
# engine has no such limit, but is planned with the same share.
UTILIZATION = 0.92

# `auto` means 16 bits: vLLM casts a float32 checkpoint down.
DTYPE_BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}

# Bytes per parameter of a quantised checkpoint, with its scales. A method that is not listed counts
# as unquantised.
QUANTISED_BYTES = {
    "fp8": 1.0,
    "compressed-tensors": 1.0,
    "awq": 0.56,
    "awq_marlin": 0.56,
    "gptq": 0.56,
    "gptq_marlin": 0.56,
    "bitsandbytes": 0.56,
}

# A suggested context is a multiple of this many tokens.
BLOCK = 256


@dataclass(frozen=True)
class Need:
    """What one GPU of a replica must hold, in bytes. The KV cache holds `context` tokens."""

    parameters: int
    weights: int
    kv_per_token: int
    context: int
    lora: int
    overhead: int = OVERHEAD

    @property
    def kv_cache(self) -> int:
        return self.kv_per_token * self.context

    @property
    def fixed(self) -> int:
        """Everything but the KV cache."""
        return self.weights + self.lora + self.overhead

    @property
    def total(self) -> int:
        return self.fixed + self.kv_cache

    def tokens_in(self, budget: int) -> int:
        """Return how many tokens the cache can hold in this budget; 0 for a model without one."""
        return max(0, budget - self.fixed) // self.kv_per_token if self.kv_per_token else 0


def read_config(spec: EngineSpec) -> tuple[str | None, dict[str, Any]]:
    """Return architecture and sizes: from the checkpoint's config.json if `weights` is a directory
    on this machine, else from the entry."""
    file = Path(spec.weights) / "config.json"
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return spec.architecture, spec.config
    if not isinstance(found, dict):
        return spec.architecture, spec.config
    architectures = found.get("architectures") or [spec.architecture]
    # A model that takes images has its language model's sizes in `text_config`.
    inner = found.get("text_config")
    return architectures[0], {**found, **inner} if isinstance(inner, dict) else found


def shape(spec: EngineSpec) -> Shape:
    """Return the model's sizes.

    Raises:
        UnknownShapeError: the entry does not say enough.
    """
    return shape_of(*read_config(spec))


def argument(spec: EngineSpec, name: str, default: Any = None) -> Any:
    """Return one of vLLM's own arguments, whose name operators write with `_` or with `-`."""
    for key, value in spec.engine_args.items():
        if key.replace("-", "_") == name:
            return value
    return default


def utilization(spec: EngineSpec) -> float:
    value = argument(spec, "gpu_memory_utilization", UTILIZATION)
    return float(value) if isinstance(value, int | float) else UTILIZATION


def pipeline_parallel(spec: EngineSpec) -> int:
    value = argument(spec, "pipeline_parallel_size", 1)
    return value if isinstance(value, int) and value > 0 else 1


def need(spec: EngineSpec, shape: Shape, tensor_parallel: int | None = None) -> Need:
    """Compute the need for this tensor parallel size; without one, for the entry's own."""
    split = tensor_parallel or spec.tensor_parallel
    stages = pipeline_parallel(spec)
    size = DTYPE_BYTES[spec.dtype]
    method = argument(spec, "quantization")
    weight_size = QUANTISED_BYTES.get(str(method), size)
    cache_type = str(argument(spec, "kv_cache_dtype", "auto"))
    cache_size = 1 if cache_type.startswith("fp8") else size
    cached_layers = -(-shape.cached_layers // stages)
    kv_heads = -(-shape.kv_heads // split)
    return Need(
        parameters=shape.parameters,
        weights=int(shape.parameters * weight_size / (split * stages)),
        kv_per_token=2 * cached_layers * kv_heads * shape.head_dim * cache_size,
        context=spec.context,
        lora=_lora(spec, shape, split, stages) * size,
    )


def _lora(spec: EngineSpec, shape: Shape, tensor_parallel: int, stages: int) -> int:
    """Return how many parameters all LoRA slots on one GPU have. vLLM allocates them at its start.

    Every linear layer has slots. So do the embedding and the output head: rank x (vocabulary +
    hidden) each, not split over GPUs.
    """
    if spec.lora is None:
        return 0
    rank = spec.lora.max_rank
    layers = -(-shape.layers // stages)
    layer = sum(linear.lora_parameters(rank, tensor_parallel) for linear in shape.linears)
    ends = 2 * rank * (shape.vocab + shape.hidden)
    return spec.lora.slots * (layers * layer + ends)


def divides(shape: Shape, tensor_parallel: int) -> str | None:
    """Say why the model cannot be split over so many GPUs; None if it can.

    Each GPU takes whole attention heads and an equal part of the feed-forward. KV heads are split
    too, or repeated if there are fewer of them than GPUs.
    """
    if shape.heads % tensor_parallel:
        return f"{shape.heads} attention heads cannot be split evenly over {tensor_parallel} GPUs"
    more, fewer = max(shape.kv_heads, tensor_parallel), min(shape.kv_heads, tensor_parallel)
    if more % fewer:
        return f"{shape.kv_heads} KV heads cannot be spread evenly over {tensor_parallel} GPUs"
    if shape.feed_forward is not None and shape.feed_forward % tensor_parallel:
        width = shape.feed_forward
        return f"a feed-forward of {width} cannot be split evenly over {tensor_parallel} GPUs"
    return None


def possible_splits(shape: Shape, most: int = 16) -> list[int]:
    """Return the tensor parallel sizes that the model allows: powers of two, since machines have
    as many GPUs."""
    return [2**n for n in range(most.bit_length()) if divides(shape, 2**n) is None]
