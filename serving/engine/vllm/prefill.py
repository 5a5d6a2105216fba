"""How much of a prompt one step runs."""

from __future__ import annotations

from typing import Any


def cut_prompts(config: Any, tokens: int) -> None:
    """Have vLLM's scheduler run prompts in pieces, where its model allows that.

    Its own argument (`long_prefill_token_threshold`), if it is given, stays; but that refuses
    pieces longer than the context, kills a cross-encoder, whose prompts must be run whole, and
    leaves the prompt of an only request whole (`core_patches.patch_lone_prompts`).

    Args:
        config: vLLM's of the engine (`VllmConfig`), complete.
        tokens: of a piece; 0: prompts are run in as large pieces as fit in a step.
    """
    scheduler, model = config.scheduler_config, config.model_config
    if (
        tokens
        and model.runner_type == "generate"
        and scheduler.enable_chunked_prefill
        # An image that must be run whole, and is larger than a piece, would never get its turn.
        and not scheduler.disable_chunked_mm_input
        and not scheduler.long_prefill_token_threshold
    ):
        scheduler.long_prefill_token_threshold = min(tokens, int(model.max_model_len))
