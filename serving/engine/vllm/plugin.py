"""Our plugin for vLLM, which vLLM loads in every process it starts (pyproject.toml)."""

from __future__ import annotations

from serving.engine.vllm.accused import belongs_to_an_engine_server


def load() -> None:
    """Put our patches into this process, if an engine server of ours has started it.

    vLLM calls this in the engine server too, which needs none of them, and wherever else it is used
    in this environment.
    """
    if not belongs_to_an_engine_server():
        return
    # Imported late: elsewhere they would only take time.
    from vllm.platforms import current_platform

    from serving.engine.queue_limits import QueueLimits
    from serving.engine.vllm.core_patches import (
        patch_death,
        patch_grammars,
        patch_lone_prompts,
    )

    patch_death()
    patch_grammars()
    if QueueLimits().prefill:
        patch_lone_prompts()
    if current_platform.is_cpu():
        from serving.engine.vllm.worker_patches import patch_prompt_logprobs

        patch_prompt_logprobs()
