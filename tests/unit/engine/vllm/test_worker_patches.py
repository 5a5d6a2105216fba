"""What `worker_patches.py` assumes of vLLM, against the installed version."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.lora.layers import LogitsProcessorWithLoRA
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from serving.engine.vllm import worker_patches

HIDDEN, RANK, VOCABULARY, SLOTS = 4, 2, 6, 3


class Layer(LogitsProcessorWithLoRA):
    """The layer with nothing of a model below it."""

    def __init__(self, wrapper: PunicaWrapperCPU) -> None:
        torch.nn.Module.__init__(self)
        self.punica_wrapper = wrapper
        generator = torch.Generator().manual_seed(1)
        self.a = torch.randn(SLOTS, 1, RANK, HIDDEN, generator=generator)
        self.b = torch.randn(SLOTS, 1, VOCABULARY, RANK, generator=generator)
        self.a[-1] = self.b[-1] = 0  # as ours is never filled

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        made = torch.zeros(hidden.shape[0], VOCABULARY)
        self.punica_wrapper.add_lora_logits(made, hidden, self.a, self.b, 1.0)
        return made

    def expected(self, hidden: torch.Tensor, slot: int) -> torch.Tensor:
        return hidden @ self.a[slot, 0].T @ self.b[slot, 0].T


class Runner:
    """What of a model runner computes prompt logprobs: `original` takes its place in the test."""

    lora_config = object()

    def __init__(self, slots: list[int], lengths: list[int]) -> None:
        wrapper = PunicaWrapperCPU(64, 8, "cpu")
        tokens = [slot for slot, length in zip(slots, lengths, strict=True) for _ in range(length)]
        wrapper._token_lora_indices[: len(tokens)] = torch.tensor(tokens)
        wrapper._sampler_indices[: len(slots)] = torch.tensor(slots)
        wrapper.indices_len[:] = [len(tokens), len(slots), len(slots), len(tokens)]
        self.layer = Layer(wrapper)
        self.model = torch.nn.ModuleList([self.layer])
        starts = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
        self.query_start_loc = SimpleNamespace(np=torch.tensor(starts).numpy())
        names = [f"r{number}" for number in range(len(slots))]
        self.input_batch = SimpleNamespace(
            req_id_to_index={name: number for number, name in enumerate(names)}
        )
        self.num_prompt_logprobs = dict.fromkeys(names, 0)
        self.scheduled = dict(zip(names, lengths, strict=True))

    def original(self, hidden: torch.Tensor, scheduled: dict[str, int]) -> dict[str, Any]:
        found = {}
        for name in list(self.num_prompt_logprobs):
            start = int(self.query_start_loc.np[self.input_batch.req_id_to_index[name]])
            found[name] = self.layer.logits(hidden[start : start + scheduled[name]])
            del self.num_prompt_logprobs[name]
        return found


@pytest.mark.parametrize(
    ("slots", "lengths"),
    [([0], [5]), ([0, 1], [5, 3]), ([1, 0], [2, 2]), ([-1, 0, 1, -1], [4, 1, 7, 3])],
)
def test_each_prompts_logits_have_their_own_adapter(
    monkeypatch: pytest.MonkeyPatch, slots: list[int], lengths: list[int]
) -> None:
    monkeypatch.setattr(GPUModelRunner, "_get_prompt_logprobs_dict", Runner.original)
    worker_patches.patch_prompt_logprobs()
    runner = Runner(slots, lengths)
    hidden = torch.randn(sum(lengths), HIDDEN, generator=torch.Generator().manual_seed(2))
    kept = runner.layer.punica_wrapper._sampler_indices[: len(slots)].clone()
    found = GPUModelRunner._get_prompt_logprobs_dict(runner, hidden, runner.scheduled)
    assert set(found) == set(runner.scheduled)
    for number, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
        start = sum(lengths[:number])
        expected = runner.layer.expected(hidden[start : start + length], slot)
        torch.testing.assert_close(found[f"r{number}"], expected)
    assert runner.num_prompt_logprobs == {}
    assert torch.equal(runner.layer.punica_wrapper.sampler_indices, kept)


def test_vllm_still_fails_of_rows_of_one_request_beside_another() -> None:
    """If this passes one day without the patch, the patch may go."""
    runner = Runner([0, 1], [5, 3])
    with pytest.raises(RuntimeError, match="einsum"):
        runner.layer.logits(torch.zeros(5, HIDDEN))


def test_a_prompt_in_chunks_stays_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_chunk(self: Runner, hidden: Any, scheduled: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(GPUModelRunner, "_get_prompt_logprobs_dict", first_chunk)
    worker_patches.patch_prompt_logprobs()
    runner = Runner([0, 1], [5, 3])
    asked = dict(runner.num_prompt_logprobs)
    del runner.scheduled["r1"]  # preempted: it is in no step now
    assert GPUModelRunner._get_prompt_logprobs_dict(runner, None, runner.scheduled) == {}
    assert runner.num_prompt_logprobs == asked


def test_what_the_patch_reads_of_the_model_runner() -> None:
    original = inspect.getsource(inspect.unwrap(GPUModelRunner._get_prompt_logprobs_dict))
    if "one_by_one" in original:
        pytest.fail("the class is patched: another test left it so")
    for name in ("self.num_prompt_logprobs", "self.query_start_loc.np[", "req_id_to_index["):
        assert name in original, f"{name}: see patch_prompt_logprobs"
    assert "num_scheduled_tokens.get(req_id)" in original
