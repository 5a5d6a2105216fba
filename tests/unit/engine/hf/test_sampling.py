from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from serving.engine.hf.sampling import Params, Sampler, choose

VOCABULARY = 50
DRAWS = 4000


def sampler(**fields: float) -> Sampler:
    return Sampler(Params(max_tokens=1, **fields))  # type: ignore[arg-type]


@pytest.fixture
def logits() -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn(VOCABULARY) * 2


def draw(logits: torch.Tensor, **fields: float) -> Counter[int]:
    rows = [sampler(**fields) for _ in range(DRAWS)]
    return Counter(choose(logits.repeat(DRAWS, 1), rows))


def test_temperature_zero_is_greedy(logits: torch.Tensor) -> None:
    assert draw(logits, temperature=0.0).keys() == {int(logits.argmax())}
    assert draw(logits, temperature=1e-7).keys() == {int(logits.argmax())}
    assert draw(logits, temperature=1e-4).keys() == {int(logits.argmax())}


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 5},
        {"temperature": 1.0, "top_p": 0.6},
        {"temperature": 1.5, "top_k": 12, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 1e-6},
        {"temperature": 1.0, "top_k": 1000},
    ],
)
def test_tokens_are_drawn_as_transformers_would(
    logits: torch.Tensor, fields: dict[str, float]
) -> None:
    scores = TemperatureLogitsWarper(fields["temperature"])(None, logits[None])
    if "top_k" in fields:
        scores = TopKLogitsWarper(int(fields["top_k"]))(None, scores)
    if "top_p" in fields:
        scores = TopPLogitsWarper(fields["top_p"])(None, scores)
    odds = scores.softmax(-1)[0]
    found = draw(logits, **fields)
    assert all(odds[token] > 0 for token in found)
    for token in range(VOCABULARY):
        expected = float(odds[token])
        spread = 5 * (expected * (1 - expected) / DRAWS) ** 0.5
        assert abs(found[token] / DRAWS - expected) <= spread + 1e-3


def test_every_row_has_its_own_parameters(logits: torch.Tensor) -> None:
    best = int(logits.argmax())
    top3 = set(logits.topk(3).indices.tolist())
    seen: set[int] = set()
    for _ in range(200):
        rows = [
            sampler(temperature=0.0),
            sampler(temperature=2.0, top_k=3),
            sampler(temperature=1.0, top_p=1e-6),
            sampler(temperature=2.0),
        ]
        greedy, three, one, free = choose(logits.repeat(4, 1), rows)
        assert greedy == one == best
        assert three in top3
        seen.add(free)
    assert len(seen) > 10


def test_penalties_count_what_was_generated() -> None:
    row = sampler(frequency_penalty=0.5, presence_penalty=1.0)
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    # 0 scores 3, 1.5, 1.0; 1 scores 2, 0.5; 2 scores 1.
    assert [choose(logits.clone(), [row])[0] for _ in range(3)] == [0, 1, 0]
    assert row.counts == {0: 2, 1: 1}
    plain = sampler()
    assert choose(logits.clone(), [plain]) == [0]
    assert not plain.counts


def test_the_likeliest_token_stays_however_small_top_p_is(logits: torch.Tensor) -> None:
    assert draw(logits, temperature=1.0, top_p=1e-46).keys() == {int(logits.argmax())}


def test_a_row_that_overflowed_ends_no_other(logits: torch.Tensor) -> None:
    broken = torch.full_like(logits, torch.nan)
    rows = [sampler(temperature=1.0, top_p=0.5), sampler(temperature=1.0, top_p=1e-6)]
    found = choose(torch.stack([broken, logits]), rows)
    assert 0 <= found[0] < VOCABULARY
    assert found[1] == int(logits.argmax())
