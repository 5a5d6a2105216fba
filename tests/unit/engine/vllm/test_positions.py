"""Log probabilities that are made when they are read are those that vLLM makes in each step."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from vllm.v1.engine import logprobs as vllm_logprobs
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from local_models.make import WEIGHTS
from serving.engine.vllm.patches import positions
from serving.engine.vllm.patches.positions import (
    Position,
    Positions,
    PromptPositions,
    Texts,
    keep_positions,
)

TOP = 4


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(Path(WEIGHTS) / "tiny-llama")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's own is back afterwards."""
    for name in ("_update_sample_logprobs", "_update_prompt_logprobs"):
        monkeypatch.setattr(LogprobsProcessor, name, getattr(LogprobsProcessor, name))
    name = "convert_ids_list_to_tokens"
    monkeypatch.setattr(vllm_logprobs, name, getattr(vllm_logprobs, name))


def processor(tokenizer: Any) -> LogprobsProcessor:
    return LogprobsProcessor(
        tokenizer=tokenizer,
        logprobs=[],
        prompt_logprobs=[None],
        cumulative_logprob=0.0,
        num_logprobs=TOP,
        num_prompt_logprobs=TOP,
    )


def rows(tokenizer: Any, count: int) -> tuple[Any, Any, Any]:
    """Tokens, log probabilities and ranks of so many positions. The sampled tokens are bytes of
    characters that take several, so that a text needs the tokens before it."""
    random = np.random.default_rng(5)
    text = tokenizer("naïve 你好 👋 café " * count, add_special_tokens=False)["input_ids"][:count]
    others = random.integers(3, len(tokenizer), (count, TOP))
    tokens = np.concatenate([np.array(text)[:, None], others], axis=1).astype(np.int32)
    tokens[1, 2] = tokens[1, 0]  # a sampled token that is one of the best
    logprobs = np.sort(random.normal(-5, 2, (count, TOP + 1)).astype(np.float32))[:, ::-1].copy()
    return tokens, logprobs, random.integers(1, 9, count).astype(np.int64)


def steps(tokenizer: Any, count: int) -> Iterator[LogprobsLists]:
    tokens, logprobs, ranks = rows(tokenizer, count)
    for at in range(count):
        part = slice(at, at + 1)
        yield LogprobsLists(tokens[part], logprobs[part], ranks[part])


def test_vllm_hands_them_on_as_it_did() -> None:
    source = inspect.getsource(LogprobsProcessor.update_from_output)
    assert "self._update_sample_logprobs(output.new_logprobs)" in source
    assert "self._update_prompt_logprobs(output.new_prompt_logprobs_tensors)" in source
    assert "self.prompt_logprobs = []" in inspect.getsource(LogprobsProcessor.pop_prompt_logprobs)
    # As nothing is made in a step, a position is made with the tokens before it that are needed.
    context = inspect.signature(LogprobsProcessor._get_sampled_context_ids).parameters
    assert context["max_context"].default == positions.CONTEXT


@pytest.mark.usefixtures("kept")
def test_a_choice_has_what_vllm_makes(tokenizer: Any) -> None:
    right = processor(tokenizer)
    for lists in steps(tokenizer, 40):
        positions._make(right, lists)
    keep_positions()
    ours = processor(tokenizer)
    for lists in steps(tokenizer, 40):
        ours._update_sample_logprobs(lists)
    assert right.logprobs is not None
    assert ours.logprobs is not None
    assert any(
        "�" in (each.decoded_token or "") or not each.decoded_token
        for position in right.logprobs
        for each in position.values()
    )
    found = list(ours.logprobs)
    assert all(isinstance(position, Position) for position in found)
    # The last ones first: none depends on what was read before it.
    for mine, its in zip(reversed(found), reversed(right.logprobs), strict=True):
        assert list(mine.items()) == list(its.items())
        assert list(mine) == list(its)
        assert len(mine) == len(its)
    assert ours.cumulative_logprob == pytest.approx(right.cumulative_logprob)


@pytest.mark.usefixtures("kept")
def test_a_prompt_has_what_vllm_makes(tokenizer: Any) -> None:
    tokens, logprobs, ranks = (torch.from_numpy(each) for each in rows(tokenizer, 40))
    chunks = [
        LogprobsTensors(tokens[part], logprobs[part], ranks[part])
        for part in (slice(0, 25), slice(25, 40))
    ]
    right = processor(tokenizer)
    for chunk in chunks:
        positions._make_prompt(right, chunk)
    keep_positions()
    ours = processor(tokenizer)
    for chunk in chunks:
        ours._update_prompt_logprobs(chunk)
    found = ours.pop_prompt_logprobs()
    assert isinstance(found, PromptPositions)
    assert ours.prompt_logprobs == []
    assert right.prompt_logprobs is not None
    assert len(found) == len(right.prompt_logprobs) == 41
    assert [None if each is None else dict(each) for each in found] == right.prompt_logprobs
    assert [each is None for each in found[:3]] == [True, False, False]


@pytest.mark.usefixtures("kept")
def test_a_step_makes_no_text_and_keeps_nothing_of_what_it_was_sent(tokenizer: Any) -> None:
    keep_positions()
    asked: list[int] = []

    class Counting:
        def decode(self, tokens: list[int]) -> str:
            asked.extend(tokens)
            return str(tokenizer.decode(tokens))

    ours = processor(Counting())
    for lists in steps(tokenizer, 8):
        ours._update_sample_logprobs(lists)
        lists.logprobs[:] = 0.0  # the buffer is used again
    tokens, logprobs, ranks = (torch.from_numpy(each) for each in rows(tokenizer, 8))
    ours._update_prompt_logprobs(LogprobsTensors(tokens, logprobs, ranks))
    assert not asked
    assert ours.logprobs is not None
    (last,) = ours.logprobs[-1:]
    assert next(iter(last.values())).logprob != 0.0
    assert asked


@pytest.mark.usefixtures("kept")
def test_a_position_is_no_object_until_it_is_read(tokenizer: Any) -> None:
    """Else a garbage collection stands before everybody's tokens."""
    keep_positions()
    all_steps = list(steps(tokenizer, 200))
    ours = processor(tokenizer)
    ours._update_sample_logprobs(all_steps[0])
    gc.collect()
    before = len(gc.get_objects())
    for lists in all_steps[1:]:
        ours._update_sample_logprobs(lists)
    gc.collect()
    assert len(gc.get_objects()) - before < 20
    assert isinstance(ours.logprobs, Positions)
    assert len(ours.logprobs) == 200
    assert [len(ours.logprobs[part]) for part in (slice(-1, None), slice(5), slice(9, 3))] == [
        1,
        5,
        0,
    ]
    assert ours.logprobs[-1] == ours.logprobs[199]
    with pytest.raises(IndexError):
        ours.logprobs[200]


@pytest.mark.usefixtures("kept")
def test_flat_ones_are_left_to_vllm(tokenizer: Any) -> None:
    keep_positions()
    flat = processor(tokenizer)
    flat.logprobs = vllm_logprobs.FlatLogprobs()
    for lists in steps(tokenizer, 3):
        flat._update_sample_logprobs(lists)
    assert len(flat.logprobs) == 3
    assert len(flat.logprobs.token_ids) == 3 * (TOP + 1)


def test_each_token_is_looked_up_once() -> None:
    asked: list[list[int]] = []

    def find(tokenizer: str, tokens: list[int]) -> list[str]:
        asked.append(tokens)
        return [f"{tokenizer}{token}" for token in tokens]

    texts = Texts(find)
    one, other = "a", "b"
    assert texts(one, [1, 2, 1]) == ["a1", "a2", "a1"]
    assert texts(one, [2, 3]) == ["a2", "a3"]
    assert texts(other, [2]) == ["b2"]
    assert texts(one, []) == []
    assert asked == [[1, 2], [3], [2]]
