"""What is replaced of vLLM in the processes of its workers, by `plugin.py`.

`tests/unit/engine/vllm/test_worker_patches.py` holds each assumption against the installed version.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.lora.layers import LogitsProcessorWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.v1.worker.gpu_model_runner import GPUModelRunner


def patch_prompt_logprobs() -> None:
    """Let an engine with LoRA on the CPU compute the logprobs of prompts.

    For these the model runner computes logits of all tokens of one request's prompt at a time. The
    LoRA layer of the logits takes each row for the next token of another request of the step, of
    which there are fewer or more: the product of the two fails, or mixes up adapters. vLLM's CPU
    kernels take a single adapter index for any number of rows, so each request is computed while
    its own index is the only one.
    """
    original = GPUModelRunner._get_prompt_logprobs_dict

    def one_by_one(self: Any, hidden_states: Any, num_scheduled_tokens: Any) -> Any:
        asked = self.num_prompt_logprobs
        if not asked or not (wrappers := _logits_wrappers(self)):
            return original(self, hidden_states, num_scheduled_tokens)
        found: dict[str, Any] = {}
        for request in list(asked):
            if request not in num_scheduled_tokens:
                continue
            row = self.query_start_loc.np[self.input_batch.req_id_to_index[request]].item()
            self.num_prompt_logprobs = {request: asked[request]}
            try:
                with _only_adapter_of(wrappers, row):
                    found |= original(self, hidden_states, num_scheduled_tokens)
                if not self.num_prompt_logprobs:
                    del asked[request]
            finally:
                self.num_prompt_logprobs = asked
        return found

    GPUModelRunner._get_prompt_logprobs_dict = one_by_one


def _logits_wrappers(runner: Any) -> list[PunicaWrapperCPU]:
    """What applies the adapters to the logits of this runner's model, if that is on the CPU."""
    if getattr(runner, "lora_config", None) is None:
        return []
    layers = (
        layer for layer in runner.model.modules() if isinstance(layer, LogitsProcessorWithLoRA)
    )
    wrappers = {id(layer.punica_wrapper): layer.punica_wrapper for layer in layers}
    return [each for each in wrappers.values() if isinstance(each, PunicaWrapperCPU)]


@contextmanager
def _only_adapter_of(wrappers: list[PunicaWrapperCPU], row: int) -> Iterator[None]:
    """While the block runs, all rows of logits have the adapter of the step's token `row`."""
    kept = [
        (wrapper, wrapper.indices_len[1], wrapper._sampler_indices[0].item())
        for wrapper in wrappers
    ]
    for wrapper in wrappers:
        wrapper._sampler_indices[0] = wrapper._token_lora_indices[row]
        wrapper.indices_len[1] = 1
    try:
        yield
    finally:
        for wrapper, length, first in kept:
            wrapper._sampler_indices[0] = first
            wrapper.indices_len[1] = length
