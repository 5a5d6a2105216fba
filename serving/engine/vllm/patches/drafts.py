"""A whole answer in the making: vLLM makes it with a mark in each place where log probabilities
belong, and they are written into its JSON later, `PIECE` tokens at a time.

`answers.py` says what for.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, TypeAdapter
from vllm.entrypoints.generate.base.serving import clamp_prompt_logprobs
from vllm.logprobs import Logprob

from serving.engine.vllm.patches.positions import Position, PromptPositions

# An answer has so many log probabilities written on the event loop, in some 10 ms.
FEW = 500
# How many tokens' log probabilities are written at a time, in about a millisecond, and how long the
# event loop has the interpreter to itself after each at least, in seconds.
PIECE = 8
PAUSE_S = 0.0001

Write = Callable[[], Iterable[bytes]]

# What marks begin with: no caller can know it.
_MARK = f"held-{secrets.token_hex(16)}-"
_MARKS = re.compile(_MARK.encode() + rb"\d{8}")
_PROMPT = TypeAdapter(list[dict[int, Logprob] | None])
# As vLLM's routes write it.
to_json: Callable[[Any], bytes] = JSONResponse(None).render


class Pace:
    """Keeps a thread that writes an answer to half of a core; the rest is for other requests."""

    def __init__(self) -> None:
        self._since = time.thread_time()

    def pause(self) -> None:
        """Sleep for as long as the thread has worked since the last time."""
        time.sleep(max(PAUSE_S, time.thread_time() - self._since))
        self._since = time.thread_time()


class Left(Exception):
    """Nobody waits for the answer any more."""


class Draft:
    """A whole answer in the making.

    Args:
        how: the arguments of `model_dump` with which vLLM's route writes it.
    """

    def __init__(self, how: Mapping[str, Any]) -> None:
        self._how = how
        self._few = FEW
        # By mark: the JSON of what stands there, and what writes the JSON that belongs there.
        self._parts: dict[str, tuple[bytes, Write]] = {}
        self._prompts: dict[str, PromptPositions] = {}
        self.left = False

    def takes(self, logprobs: int) -> bool:
        """True if so many more are to be written later."""
        self._few -= logprobs
        return self._few < 0

    @property
    def empty(self) -> bool:
        return not self._parts

    def new_mark(self) -> str:
        """A text that stands nowhere yet, and that nobody else writes."""
        return f"{_MARK}{len(self._parts):08}"

    def hold(self, mark: str, stand_in: Any, write: Write) -> None:
        """Have `write` give the JSON of what `stand_in`, which has a mark in it, stands for."""
        self._parts[mark] = (self.json(stand_in), write)

    def hold_prompt(self, positions: PromptPositions) -> list[dict[int, Logprob] | None]:
        """A stand-in for the log probabilities of a prompt."""
        mark = self.new_mark()
        self._prompts[mark] = positions
        stand_in: list[dict[int, Logprob] | None] = [{0: Logprob(0.0, None, mark)}]
        said = to_json(_PROMPT.dump_python(stand_in))
        self._parts[mark] = (said, partial(_prompt, positions))
        return stand_in

    def echoed(self, positions: Sequence[Any]) -> Sequence[Any]:
        """`positions`, with those of the prompt where their stand-in is the first."""
        first = positions[0] if positions else None
        if first is None or isinstance(first, Position) or 0 not in first:
            return positions
        prompt = self._prompts.get(first[0].decoded_token)
        return positions if prompt is None else [*prompt, *positions[1:]]

    def json(self, value: Any) -> bytes:
        """The JSON of a model, or of a list of them, as vLLM's route writes it."""
        if isinstance(value, list):
            return to_json([one.model_dump(**self._how) for one in value])
        return to_json(value.model_dump(**self._how))

    def write(self, answer: BaseModel, field: str) -> bytes:
        """The JSON of an answer; `field` holds its list of choices."""
        parts: list[bytes] = []
        shell = answer.model_copy(update={field: []}).model_dump(**self._how)
        for name, value in shell.items():
            parts += (b"," if parts else b"{", to_json(name), b":")
            if name == field:
                parts.append(b"[")
                for number, item in enumerate(getattr(answer, field)):
                    if number:
                        parts.append(b",")
                    parts += self.filled(self.json(item))
                parts.append(b"]")
            else:
                parts += self.filled(to_json(value))
        parts.append(b"}")
        return b"".join(parts)

    def filled(self, said: bytes) -> Iterator[bytes]:
        """`said` with what its stand-ins stand for."""
        at, pace = 0, Pace()
        for found in _MARKS.finditer(said):
            mark = found.group()
            stand_in, write = self._parts[mark.decode()]
            start = found.start() - stand_in.index(mark)
            yield said[at:start]
            for piece in write():
                if self.left:
                    raise Left
                yield piece
                pace.pause()
            at = start + len(stand_in)
        yield said[at:]


def columns(pieces: Iterable[Mapping[str, list[Any]]]) -> Iterator[bytes]:
    """The JSON of an object of lists that comes in pieces."""
    found: dict[str, list[bytes]] = {}
    for piece in pieces:
        for name, values in piece.items():
            found.setdefault(name, []).append(to_json(values)[1:-1])
        yield b""  # a place to stop
    for number, (name, written) in enumerate(found.items()):
        yield b"," if number else b"{"
        yield to_json(name) + b":["
        yield b",".join(written)
        yield b"]"
    yield b"}"


def _prompt(positions: PromptPositions) -> Iterator[bytes]:
    """The JSON of a prompt's log probabilities."""
    yield b"["
    for start in range(0, len(positions), PIECE):
        piece = positions[start : start + PIECE]
        made = [None if each is None else each.made() for each in piece]
        said = to_json(_PROMPT.dump_python(clamp_prompt_logprobs(made)))[1:-1]
        forget(piece)
        yield b"," + said if start else said
    yield b"]"


def forget(positions: Iterable[Any]) -> None:
    """Drop what was made of them to be written."""
    for position in positions:
        if isinstance(position, Position):
            position.forget()
