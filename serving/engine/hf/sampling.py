"""The next token of every row of a batch, each with parameters of its own.

Penalties, temperature, top-k, top-p, in that order, as in vLLM and OpenAI's API; each stage looks
at what the one before left. transformers' own processors take one set of parameters for a whole
batch; the tests compare these results with theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Below this the most likely token is taken, as in vLLM: logits divided by less overflow.
GREEDY_BELOW = 1e-5


@dataclass(frozen=True, slots=True)
class Params:
    """Sampling parameters of one request, none missing. `top_k` 0: all tokens."""

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def penalised(self) -> bool:
        return bool(self.frequency_penalty or self.presence_penalty)


@dataclass(slots=True)
class Sampler:
    """One row's parameters, and how often it has generated each token."""

    params: Params
    counts: Counter[int] = field(default_factory=Counter)


def choose(logits: Tensor, rows: Sequence[Sampler]) -> list[int]:
    """The next token of each row. `logits` (float32: rows, vocabulary) are changed."""
    _penalise(logits, rows)
    tokens: list[int] = logits.argmax(-1).tolist()
    drawn = [index for index, row in enumerate(rows) if not row.params.greedy]
    if drawn:
        picked = _draw(logits[drawn], [rows[index].params for index in drawn])
        for index, token in zip(drawn, picked, strict=True):
            tokens[index] = token
    for row, token in zip(rows, tokens, strict=True):
        if row.params.penalised:
            row.counts[token] += 1
    return tokens


def _penalise(logits: Tensor, rows: Sequence[Sampler]) -> None:
    """Subtract, for every token generated so far, `presence + frequency x count`."""
    places: list[int] = []
    tokens: list[int] = []
    amounts: list[float] = []
    for place, row in enumerate(rows):
        for token, count in row.counts.items():
            places.append(place)
            tokens.append(token)
            params = row.params
            amounts.append(-params.presence_penalty - params.frequency_penalty * count)
    if places:
        device = logits.device
        at = (torch.tensor(places, device=device), torch.tensor(tokens, device=device))
        logits.index_put_(
            at, torch.tensor(amounts, dtype=logits.dtype, device=device), accumulate=True
        )


def _draw(logits: Tensor, params: Sequence[Params]) -> list[int]:
    """Draw a token for each row."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=logits.device).unsqueeze(1)

    logits = logits / column([one.temperature for one in params])
    if all(one.top_k == 0 and one.top_p >= 1 for one in params):
        return _multinomial(logits.softmax(-1))
    size = logits.shape[1]
    logits, order = logits.sort(-1, descending=True)
    ranks = torch.arange(size, device=logits.device)
    logits.masked_fill_(ranks >= column([one.top_k or size for one in params]), -torch.inf)
    odds = logits.softmax(-1)
    # A token stays if those before it come to less than top_p; the first one always does.
    before = odds.cumsum(-1) - odds
    gone = before >= column([one.top_p for one in params])
    gone[:, 0] = False  # also where top_p is so small that it is 0 as float32
    odds.masked_fill_(gone, 0)
    places = torch.tensor(_multinomial(odds), device=logits.device).unsqueeze(1)
    tokens: list[int] = order.gather(1, places).squeeze(1).tolist()
    return tokens


def _multinomial(odds: Tensor) -> list[int]:
    # A row on which the model overflowed has no odds left; that must not fail the other rows.
    odds = odds.nan_to_num(0)
    odds[odds.sum(-1) <= 0] = 1
    tokens: list[int] = torch.multinomial(odds, 1).squeeze(1).tolist()
    return tokens
