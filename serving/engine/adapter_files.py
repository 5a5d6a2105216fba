"""Checks a LoRA adapter's files before they go near an engine.

vLLM loads an adapter of the wrong shape without complaint and serves garbage, and a bad one
given straight to `generate` kills the engine. The shapes are compared with the base
checkpoint's own tensors, so nothing here depends on an architecture.
Format: PEFT's `adapter_config.json` and `adapter_model.safetensors`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from serving.errors import BadAdapter

_PREFIX = "base_model.model."


def check_adapter(path: str, *, base_path: str, base_names: frozenset[str], max_rank: int) -> None:
    """Refuse an adapter that does not fit its base model.

    Args:
        path: the adapter's directory.
        base_path: the base checkpoint's directory; shapes are not checked if it holds no
            safetensors files (an engine with dummy weights).
        base_names: names the adapter may call its base by; empty accepts any.
        max_rank: the engine's `max_lora_rank`.

    Raises:
        BadAdapter: the adapter does not fit; the message says why.
    """
    folder = Path(path)
    config = _read_config(folder)
    rank = config.get("r")
    if not isinstance(rank, int) or not 1 <= rank <= max_rank:
        raise BadAdapter(f"adapter rank is {rank!r}; the engine takes 1 to {max_rank}")
    if config.get("peft_type", "LORA") != "LORA":
        raise BadAdapter(f"adapter is of type {config['peft_type']!r}, not LORA")
    base = Path(str(config.get("base_model_name_or_path") or "")).name
    # Repository names ignore case, and the file holds whatever somebody once typed.
    if base and base_names and base.casefold() not in {name.casefold() for name in base_names}:
        raise BadAdapter(f"adapter was made for base model {base!r}, not {sorted(base_names)}")
    shapes = _shapes(folder / "adapter_model.safetensors")
    if not shapes:
        raise BadAdapter("adapter has no tensors")
    base_shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(Path(base_path).glob("*.safetensors")):
        base_shapes.update(_shapes(file))
    for name, shape in shapes.items():
        _check_tensor(name, shape, base_shapes, rank)


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_text())
    except OSError as error:
        raise BadAdapter(f"cannot read {file.name}: {error.strerror}") from None
    except ValueError as error:
        raise BadAdapter(f"{file.name} is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise BadAdapter(f"{file.name} is not a JSON object")
    return config


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Tensor shapes by name, from the file's header; the data is not read."""
    try:
        with safe_open(file, framework="np") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadAdapter(f"cannot read {file.name}: {error}") from None


def _check_tensor(
    name: str, shape: tuple[int, ...], base: dict[str, tuple[int, ...]], rank: int
) -> None:
    """Check one tensor. For a base weight of shape (outputs, inputs), lora_A has the shape
    (rank, inputs) and lora_B (outputs, rank)."""
    module, dot, part = name.removeprefix(_PREFIX).partition(".lora_")
    if not dot or part not in ("A.weight", "B.weight"):
        raise BadAdapter(f"adapter has a tensor that is not a LoRA factor: {name}")
    if not base:
        return
    weight = base.get(f"{module}.weight")
    if weight is None:
        raise BadAdapter(f"adapter targets {module}, which the base model does not have")
    expected = (rank, weight[1]) if part == "A.weight" else (weight[0], rank)
    if shape != expected:
        raise BadAdapter(f"{name} has shape {shape}, the base model needs {expected}")
