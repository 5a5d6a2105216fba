"""Log probabilities as the engine core sends them, made into text and objects when they are read.

vLLM makes text and an object of each in the step that brings it, on the event loop: 13 µs each with
a tokenizer that has bytes, so a call that asks for many stands before everybody's tokens. Here a
step keeps two small arrays, and whoever writes the answer does the rest, which for a whole answer
is a thread (`answers.py`).

`tests/unit/engine/vllm/test_positions.py` holds each assumption against the installed version.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from typing import Any, overload

import numpy as np
from vllm.logprobs import Logprob
from vllm.v1.engine import logprobs as vllm_logprobs
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists

# How many tokens before one may be needed for its text, as vLLM has it.
CONTEXT = 4


class Position(Mapping[int, Logprob]):
    """The log probabilities of one position, by token ID: what vLLM has a dict for."""

    __slots__ = ("_at", "_made", "_rows")

    def __init__(self, rows: Positions, at: int) -> None:
        self._rows = rows
        self._at = at
        self._made: dict[int, Logprob] | None = None

    def __getitem__(self, token: int) -> Logprob:
        return self.made()[token]

    def __iter__(self) -> Iterator[int]:
        yield from dict.fromkeys(self._rows.tokens[self._at].tolist())

    def __len__(self) -> int:
        return len(dict.fromkeys(self._rows.tokens[self._at].tolist()))

    def items(self) -> ItemsView[int, Logprob]:
        return self.made().items()

    def values(self) -> ValuesView[Logprob]:
        return self.made().values()

    def made(self) -> dict[int, Logprob]:
        """What vLLM makes of it."""
        if self._made is None:
            self._made = self._rows.make(self._at)
        return self._made

    def forget(self) -> None:
        """Drop what was made; it is made again if it is read again."""
        self._made = None


class Positions(Sequence[Position]):
    """Those of a completion, of which each step brings one.

    They are kept as arrays, and an object of one is made when it is asked for: the garbage
    collector visits objects, and freeing those of 128 answers of 900 tokens took it 160 ms.
    """

    def __init__(self, tokenizer: Any, most: int) -> None:
        self._tokenizer = tokenizer
        self._most = most
        self._logprobs: list[Any] = []
        self._ranks: list[int] = []
        # Of each position an array, whose first is the token that was sampled.
        self.tokens: list[Any] = []

    def add(self, tokens: Any, logprobs: Any, rank: Any) -> None:
        """One more position: a row of each."""
        self.tokens.append(tokens)
        self._logprobs.append(logprobs)
        self._ranks.append(int(rank))

    @overload
    def __getitem__(self, at: int) -> Position: ...

    @overload
    def __getitem__(self, at: slice) -> list[Position]: ...

    def __getitem__(self, at: int | slice) -> Position | list[Position]:
        found = range(len(self.tokens))[at]
        return Position(self, found) if isinstance(found, int) else [*map(self._position, found)]

    def __iter__(self) -> Iterator[Position]:
        return map(self._position, range(len(self.tokens)))

    def __len__(self) -> int:
        return len(self.tokens)

    def make(self, at: int) -> dict[int, Logprob]:
        """What vLLM makes of a position and the sampled tokens before it."""
        context = [int(tokens[0]) for tokens in self.tokens[max(0, at - CONTEXT) : at]]
        maker = LogprobsProcessor(
            tokenizer=self._tokenizer,
            logprobs=[{token: None} for token in context],
            prompt_logprobs=None,
            cumulative_logprob=0.0,
            num_logprobs=self._most,
            num_prompt_logprobs=None,
        )
        rank = np.array([self._ranks[at]])
        _make(maker, LogprobsLists(self.tokens[at][None], self._logprobs[at][None], rank, None))
        made: dict[int, Logprob] = maker.logprobs[-1]
        return made

    def _position(self, at: int) -> Position:
        return Position(self, at)


class PromptPositions(Sequence["Position | None"]):
    """Those of a prompt, which come in one step; the first token has none."""

    def __init__(self, tokenizer: Any, most: int) -> None:
        self._tokenizer = tokenizer
        self._most = most
        self._parts: list[tuple[Any, Any, Any]] = []
        self._made: list[Position | None] | None = None

    def add(self, tokens: Any, logprobs: Any, ranks: Any) -> None:
        """More positions, a row for each."""
        self._parts.append((tokens, logprobs, ranks))
        self._made = None

    @overload
    def __getitem__(self, at: int) -> Position | None: ...

    @overload
    def __getitem__(self, at: slice) -> list[Position | None]: ...

    def __getitem__(self, at: int | slice) -> Position | list[Position | None] | None:
        return self._positions()[at]

    def __len__(self) -> int:
        return 1 + sum(len(tokens) for tokens, _, _ in self._parts)

    def _positions(self) -> list[Position | None]:
        if self._made is None:
            rows = Positions(self._tokenizer, self._most)
            for part in self._parts:
                for row in zip(*part, strict=True):
                    rows.add(*row)
            self._made = [None, *rows]
        return self._made


class Texts:
    """The text of each token by itself, found once.

    It depends on nothing but the token. A vocabulary's texts are some megabytes.
    """

    def __init__(self, find: Callable[[Any, list[int]], list[str]]) -> None:
        self._find = find
        # By the tokenizer's identity, which is its own as long as it is kept here.
        self._known: dict[int, tuple[Any, dict[int, str]]] = {}

    def __call__(self, tokenizer: Any, tokens: list[int]) -> list[str]:
        _, known = self._known.setdefault(id(tokenizer), (tokenizer, {}))
        if new := [token for token in dict.fromkeys(tokens) if token not in known]:
            known.update(zip(new, self._find(tokenizer, new), strict=True))
        return [known[token] for token in tokens]


_make = LogprobsProcessor._update_sample_logprobs


def _keep(self: Any, lists: Any) -> None:
    """Takes the place of `LogprobsProcessor._update_sample_logprobs`."""
    if self.logprobs == []:
        self.logprobs = Positions(self.tokenizer, self.num_logprobs)
    if not isinstance(self.logprobs, Positions):
        _make(self, lists)
        return
    tokens, logprobs, ranks, _ = lists
    for rank, row, ids in zip(ranks, logprobs, tokens, strict=True):
        self.cumulative_logprob += float(row[0])
        # Copied: they are a window on all that the step sent.
        self.logprobs.add(ids.copy(), row.copy(), rank)


_make_prompt = LogprobsProcessor._update_prompt_logprobs


def _keep_prompt(self: Any, tensors: Any) -> None:
    """Takes the place of `LogprobsProcessor._update_prompt_logprobs`."""
    if self.prompt_logprobs == [None]:
        self.prompt_logprobs = PromptPositions(self.tokenizer, self.num_prompt_logprobs)
    if not isinstance(self.prompt_logprobs, PromptPositions):
        _make_prompt(self, tensors)
        return
    tokens, logprobs, ranks, *_ = tensors
    self.prompt_logprobs.add(*(each.numpy().copy() for each in (tokens, logprobs, ranks)))


def keep_positions() -> None:
    """Have vLLM keep log probabilities as they come, in this process."""
    LogprobsProcessor._update_sample_logprobs = _keep
    LogprobsProcessor._update_prompt_logprobs = _keep_prompt
    if not isinstance(vllm_logprobs.convert_ids_list_to_tokens, Texts):
        vllm_logprobs.convert_ids_list_to_tokens = Texts(vllm_logprobs.convert_ids_list_to_tokens)
