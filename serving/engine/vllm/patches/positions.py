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


class Position(Mapping[int, Logprob]):
    """The log probabilities of one position, by token ID: what vLLM has a dict for."""

    __slots__ = ("_context", "_logprobs", "_made", "_most", "_rank", "_tokenizer", "_tokens")

    def __init__(
        self,
        tokenizer: Any,
        tokens: Any,
        logprobs: Any,
        rank: int,
        context: list[int],
        most: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._logprobs = logprobs
        self._rank = rank
        self._context = context
        self._most = most
        self._made: dict[int, Logprob] | None = None

    def __getitem__(self, token: int) -> Logprob:
        return self.made()[token]

    def __iter__(self) -> Iterator[int]:
        # The first is all that the next step reads, and no text of it.
        yield int(self._tokens[0])
        yield from list(dict.fromkeys(self._tokens.tolist()))[1:]

    def __len__(self) -> int:
        return len(dict.fromkeys(self._tokens.tolist()))

    def items(self) -> ItemsView[int, Logprob]:
        return self.made().items()

    def values(self) -> ValuesView[Logprob]:
        return self.made().values()

    def made(self) -> dict[int, Logprob]:
        """What vLLM makes of it."""
        if self._made is None:
            maker = LogprobsProcessor(
                tokenizer=self._tokenizer,
                logprobs=[{token: None} for token in self._context],
                prompt_logprobs=None,
                cumulative_logprob=0.0,
                num_logprobs=self._most,
                num_prompt_logprobs=None,
            )
            arrays = (np.array([self._rank]), self._logprobs[None], self._tokens[None])
            ranks, logprobs, tokens = arrays
            _make(maker, LogprobsLists(tokens, logprobs, ranks, None))
            self._made = maker.logprobs[-1]
        return self._made

    def forget(self) -> None:
        """Drop what was made; it is made again if it is read again."""
        self._made = None


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
            self._made = [None]
            for part in self._parts:
                for tokens, logprobs, rank in zip(*part, strict=True):
                    context = LogprobsProcessor._get_sampled_context_ids(self._made)
                    self._made.append(
                        Position(self._tokenizer, tokens, logprobs, int(rank), context, self._most)
                    )
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
    if type(self.logprobs) is not list:
        _make(self, lists)
        return
    tokens, logprobs, ranks, _ = lists
    for rank, row, ids in zip(ranks, logprobs, tokens, strict=True):
        self.cumulative_logprob += float(row[0])
        context = self._get_sampled_context_ids(self.logprobs)
        # Copied: they are a window on all that the step sent.
        position = Position(
            self.tokenizer, ids.copy(), row.copy(), int(rank), context, self.num_logprobs
        )
        self.logprobs.append(position)


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
