"""vLLM's command line for a model."""

from __future__ import annotations

import json
from typing import Any

from serving.catalogue.spec import EngineSpec, ImageLimits

MAX_QUEUED = 2048
# What vLLM calls a task. A cross-encoder is to it a classifier with one label.
VLLM_TASKS = {
    "generate": "generate",
    "embed": "embed",
    "score": "classify",
    "transcribe": "transcription",
}


def cli_arguments(spec: EngineSpec, images: ImageLimits = ImageLimits()) -> list[str]:  # noqa: B008
    """vLLM's own command line for a model: our few settings, then `engine_args` untouched."""
    args: dict[str, Any] = {
        "model": spec.weights,
        # Not left to vLLM's guess, so that a checkpoint of the other kind fails at its start.
        "runner": "pooling" if spec.task in ("embed", "score") else "generate",
        "served-model-name": spec.id,
        "max-model-len": spec.context,
        "tensor-parallel-size": spec.tensor_parallel,
        "dtype": spec.dtype,
        "revision": spec.revision,
        "chat-template": spec.chat_template,
        # Waiting and running requests together. At the end of a longer queue the clients have given
        # up by the time they are served. `engine_args` can say otherwise.
        "max-num-queued-reqs": MAX_QUEUED,
        # The priorities are those that `patches/turns.py` gives.
        "scheduling-policy": "priority",
        # With the tools before it a model makes a call, which with `tool_choice: none` nothing
        # parses: the caller gets its markup as the message.
        "exclude-tools-when-tool-choice-none": True,
    }
    if spec.tool_parser is not None:
        args["tool-call-parser"] = spec.tool_parser
        args["enable-auto-tool-choice"] = True
    if spec.reasoning_parser is not None:
        args["reasoning-parser"] = spec.reasoning_parser
    if spec.lora is not None:
        args["enable-lora"] = True
        args["max-loras"] = spec.lora.slots
        args["max-lora-rank"] = spec.lora.max_rank
    if spec.vision:
        args["limit-mm-per-prompt"] = {"image": images.max_per_request, "video": 0, "audio": 0}
    args |= {key.replace("_", "-"): value for key, value in spec.engine_args.items()}
    line: list[str] = []
    for key, value in args.items():
        if value is True:
            line.append(f"--{key}")
        elif value is False:
            line.append(f"--no-{key}")
        elif isinstance(value, dict):
            line += [f"--{key}", json.dumps(value)]
        elif isinstance(value, list):
            line += [f"--{key}", *(str(item) for item in value)]
        elif value is not None:
            line += [f"--{key}", str(value)]
    return line
