"""The rows of a running batch, on the model: their key and value caches, masks and lengths.

Rows join and leave between steps, so their sequences differ in length. All end in the last column
of the cache: a shorter row is padded at its left, where its mask is 0. That costs memory, but every
attention of `transformers` can do it: relative positions (T5) and linear biases (ALiBi, MPT) depend
on distances only, which padding on the left does not change, and models with absolute positions
are given theirs.

    row 0   t t t t t t t            t: a token's keys and values
    row 1   . . . t t t t            .: padding, masked
    row 2   . . . . . . t            <- joined last

An encoder's prompts are padded on the right. It runs once per request; what the decoder needs from
it stays in the cross-attention cache.

Everything here runs in the model's thread.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

# Columns that a cache grows by. Appending a token to a full tensor would copy all of it.
ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed for us
    """A cache layer that appends in place: `keys` and `values` are views of larger tensors.

    The layer of transformers copies both for every token. Shape: rows, heads, columns, head size.
    """

    keys: Tensor
    values: Tensor
    _all_keys: Tensor
    _all_values: Tensor

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.fill(key_states, value_states)
            return self.keys, self.values
        width = self.keys.shape[-2]
        end = width + key_states.shape[-2]
        if end > self._all_keys.shape[-2]:
            self._all_keys = pad(self.keys, (0, 0, 0, end - width + ROOM))
            self._all_values = pad(self.values, (0, 0, 0, end - width + ROOM))
        self._all_keys[:, :, width:end] = key_states
        self._all_values[:, :, width:end] = value_states
        self.keys = self._all_keys[:, :, :end]
        self.values = self._all_values[:, :, :end]
        return self.keys, self.values

    def fill(self, keys: Tensor, values: Tensor) -> None:
        """Hold exactly these."""
        self.keys = self._all_keys = keys
        self.values = self._all_values = values


def new_cache() -> Cache:
    return Cache(layer_class_to_replicate=RoomyLayer)


def join(cache: Cache, new: Cache, *, at_left: bool) -> None:
    """Add the rows of `new` to `cache`; the narrower one is padded."""
    for layer, other in zip(cache.layers, new.layers, strict=True):
        layer.fill(
            _stack(layer.keys, other.keys, at_left=at_left, axis=-2),
            _stack(layer.values, other.values, at_left=at_left, axis=-2),
        )


def keep(cache: Cache, rows: Tensor, columns: slice) -> None:
    """Drop all other rows and columns."""
    for layer in cache.layers:
        layer.fill(
            layer.keys[:, :, columns].index_select(0, rows),
            layer.values[:, :, columns].index_select(0, rows),
        )


def _stack(one: Tensor, two: Tensor, *, at_left: bool, axis: int) -> Tensor:
    """The rows of both, the narrower one padded with zeros along `axis`."""
    width = max(one.shape[axis], two.shape[axis])

    def widen(tensor: Tensor) -> Tensor:
        missing = width - tensor.shape[axis]
        if not missing:
            return tensor
        around = (missing, 0) if at_left else (0, missing)
        return pad(tensor, (*(0, 0) * (-axis - 1), *around))

    return torch.cat((widen(one), widen(two)))


class Rows(ABC):
    """The batch that a model works on. Rows are known by their place; new ones come last.

    Logits are returned in float32, one line per row.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self._model = model
        self._pad_id = pad_id
        self._device: torch.device = model.device
        names = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in names
        self._last_only: dict[str, int] = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self._empty()

    def _empty(self) -> None:
        self._cache: Any = None
        # Shape: rows, columns. 1 where the column holds a token of the row.
        self._mask = torch.zeros((0, 0), dtype=torch.long, device=self._device)

    @abstractmethod
    def admit(self, prompts: Sequence[list[int]]) -> Tensor:
        """Run the prompts and add a row for each; returns the logits of the new rows only."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> Tensor:
        """Run one step of all rows, each on its newest token."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Free all other rows, and the columns that only they needed."""

    @staticmethod
    @abstractmethod
    def cells(lengths: Sequence[tuple[int, int]]) -> int:
        """The most cells (tokens, padding included) that the caches of such rows can need.

        Args:
            lengths: tokens of the prompt, and the most tokens of the completion, of each row.
        """

    def cell_bytes(self) -> int:
        """Bytes of one cell, as the model itself allocates it."""
        self.admit([[self._pad_id]])
        size: int = sum(
            layer.keys.nbytes + layer.values.nbytes
            for cache in self._caches()
            for layer in cache.layers
        )
        count = len(self._caches())
        self._empty()
        return size // count

    @abstractmethod
    def _caches(self) -> list[Cache]: ...

    def _column(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor(tokens, dtype=torch.long, device=self._device).unsqueeze(1)

    def _padded(self, prompts: Sequence[list[int]], *, at_left: bool) -> tuple[Tensor, Tensor]:
        """Token IDs and mask."""
        width = max(map(len, prompts))
        ids, mask = [], []
        for prompt in prompts:
            fill, zeros = [self._pad_id] * (width - len(prompt)), [0] * (width - len(prompt))
            ones = [1] * len(prompt)
            ids.append(fill + prompt if at_left else prompt + fill)
            mask.append(zeros + ones if at_left else ones + zeros)
        return (
            torch.tensor(ids, dtype=torch.long, device=self._device),
            torch.tensor(mask, dtype=torch.long, device=self._device),
        )

    def _select(self, rows: Sequence[int]) -> tuple[Tensor, slice]:
        """Narrow the mask to `rows`; returns the rows' indices and the columns they need."""
        chosen = torch.tensor(rows, dtype=torch.long, device=self._device)
        mask = self._mask.index_select(0, chosen)
        columns = slice(self._mask.shape[1] - int(mask.sum(1).max()), None)
        self._mask = mask[:, columns]
        return chosen, columns


class DecoderRows(Rows):
    """Rows of a decoder-only model (MptForCausalLM)."""

    def admit(self, prompts: Sequence[list[int]]) -> Tensor:
        ids, mask = self._padded(prompts, at_left=True)
        cache = new_cache()
        logits = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            join(self._cache, cache, at_left=True)
            self._mask = _stack(self._mask, mask, at_left=True, axis=-1)
        return logits

    def decode(self, tokens: Sequence[int]) -> Tensor:
        positions = self._mask.sum(1, keepdim=True)
        self._mask = pad(self._mask, (0, 1), value=1)
        return self._forward(self._column(tokens), self._mask, positions, self._cache)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        places = {"position_ids": positions} if self._takes_positions else {}
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **places,
            **self._last_only,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        if not rows:
            self._empty()
            return
        keep(self._cache, *self._select(rows))

    @staticmethod
    def cells(lengths: Sequence[tuple[int, int]]) -> int:
        return len(lengths) * max(prompt + completion for prompt, completion in lengths)

    def _caches(self) -> list[Cache]:
        return [self._cache]


class EncoderDecoderRows(Rows):
    """Rows of an encoder-decoder model (T5ForConditionalGeneration)."""

    def __init__(self, model: Any, pad_id: int, start_id: int) -> None:
        self._start_id = start_id
        super().__init__(model, pad_id)

    def _empty(self) -> None:
        super()._empty()
        # As `_mask`, for the encoder's columns.
        self._read = torch.zeros((0, 0), dtype=torch.long, device=self._device)

    def admit(self, prompts: Sequence[list[int]]) -> Tensor:
        ids, read = self._padded(prompts, at_left=False)
        hidden = self._model.get_encoder()(input_ids=ids, attention_mask=read).last_hidden_state
        self._hidden_size = hidden.shape[-1]
        cache = EncoderDecoderCache(new_cache(), new_cache())
        mask = torch.ones((len(prompts), 1), dtype=torch.long, device=self._device)
        start = self._column([self._start_id] * len(prompts))
        logits = self._forward(start, mask, cache, hidden, read)
        if self._cache is None:
            self._cache, self._mask, self._read = cache, mask, read
        else:
            join(self._cache.self_attention_cache, cache.self_attention_cache, at_left=True)
            join(self._cache.cross_attention_cache, cache.cross_attention_cache, at_left=False)
            self._mask = _stack(self._mask, mask, at_left=True, axis=-1)
            self._read = _stack(self._read, read, at_left=False, axis=-1)
        return logits

    def decode(self, tokens: Sequence[int]) -> Tensor:
        self._mask = pad(self._mask, (0, 1), value=1)
        # The cross-attention cache has all that the decoder needs from the encoder. It still asks
        # for hidden states and looks at their shape; these take no memory.
        hidden = torch.zeros((), dtype=self._model.dtype, device=self._device)
        hidden = hidden.expand(*self._read.shape, self._hidden_size)
        return self._forward(self._column(tokens), self._mask, self._cache, hidden, self._read)

    def _forward(
        self, ids: Tensor, mask: Tensor, cache: EncoderDecoderCache, hidden: Tensor, read: Tensor
    ) -> Tensor:
        output = self._model(
            encoder_outputs=(hidden,),
            attention_mask=read,
            decoder_input_ids=ids,
            decoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        if not rows:
            self._empty()
            return
        chosen, columns = self._select(rows)
        keep(self._cache.self_attention_cache, chosen, columns)
        read = self._read.index_select(0, chosen)
        columns = slice(0, int(read.sum(1).max()))
        keep(self._cache.cross_attention_cache, chosen, columns)
        self._read = read[:, columns]

    @staticmethod
    def cells(lengths: Sequence[tuple[int, int]]) -> int:
        # The completion's start token has a cell of its own.
        prompt = max(prompt for prompt, _ in lengths)
        return len(lengths) * (prompt + 1 + max(completion for _, completion in lengths))

    def _caches(self) -> list[Cache]:
        return [self._cache.self_attention_cache, self._cache.cross_attention_cache]
