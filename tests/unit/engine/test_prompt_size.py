from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from serving.engine.prompt_size import (
    FEWEST_CHARACTERS,
    INLINE_TOKENIZE_CHARS,
    MOST_WAITING,
    TOKENIZED_AT_ONCE,
    PromptSize,
)
from serving.errors import ContextLengthExceeded, Overloaded
from tests.conftest import Eventually

SHORT, LONG = INLINE_TOKENIZE_CHARS, INLINE_TOKENIZE_CHARS + 1


class Vocabulary:
    def __init__(self, *tokens: str) -> None:
        self._tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self._tokens)}


@pytest.mark.parametrize(
    ("tokens", "most"), [(("a", "b"), 10 * FEWEST_CHARACTERS), (("a", " " * 40), 400), ((), 160)]
)
def test_only_what_cannot_fit_is_refused(tokens: tuple[str, ...], most: int) -> None:
    size = PromptSize(Vocabulary(*tokens), 10)
    size.check(most)
    with pytest.raises(ContextLengthExceeded, match="context of 10 tokens"):
        size.check(most + 1)


class Slow:
    """A tokenizer that takes as long as it is told to: until `go`."""

    def __init__(self) -> None:
        self.size = PromptSize(Vocabulary("a"), LONG)
        self.go = threading.Event()
        self.begun: list[int] = []
        self.running = self.most_running = 0
        self._lock = threading.Lock()

    def start(self, number: int) -> asyncio.Task[list[int]]:
        """Tokenize a long text, whose only token is `number`."""
        return asyncio.create_task(self.size.tokenize(LONG, lambda: self._encode(number)))

    def _encode(self, number: int) -> list[int]:
        with self._lock:
            self.begun.append(number)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            assert self.go.wait(10), "whoever was to go on did not"
        finally:
            with self._lock:
                self.running -= 1
        return [number]


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.go.set()


async def test_others_go_on_while_a_long_prompt_is_tokenized(
    slow: Slow, eventually: Eventually
) -> None:
    long = slow.start(1)
    await eventually(lambda: slow.running)
    assert await slow.size.tokenize(SHORT, lambda: [2]) == [2]
    assert not long.done()
    slow.go.set()
    assert await long == [1]


async def test_few_long_prompts_are_tokenized_at_once_and_none_keeps_a_thread_of_others(
    slow: Slow, eventually: Eventually
) -> None:
    # More than the threads that everything else shares (`asyncio.to_thread`).
    numbers = list(range(40))
    tasks = [slow.start(number) for number in numbers]
    await eventually(lambda: slow.running == TOKENIZED_AT_ONCE)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "went on"), 5) == "went on"
    slow.go.set()
    assert await asyncio.gather(*tasks) == [[number] for number in numbers]
    assert slow.begun[TOKENIZED_AT_ONCE:] == numbers[TOKENIZED_AT_ONCE:]
    assert slow.most_running == TOKENIZED_AT_ONCE


async def test_long_prompts_that_wait_are_bounded(slow: Slow, eventually: Eventually) -> None:
    tasks = [slow.start(number) for number in range(TOKENIZED_AT_ONCE + MOST_WAITING)]
    await eventually(lambda: slow.running == TOKENIZED_AT_ONCE)
    with pytest.raises(Overloaded, match="too many long prompts"):
        await slow.start(-1)
    # One that leaves makes way for another.
    tasks.pop().cancel()
    await asyncio.sleep(0)
    tasks.append(slow.start(-2))
    slow.go.set()
    assert (await asyncio.gather(*tasks))[-1] == [-2]


async def test_whoever_leaves_is_not_tokenized_and_lets_no_more_in(
    slow: Slow, eventually: Eventually
) -> None:
    tasks = [slow.start(number) for number in range(TOKENIZED_AT_ONCE + 1)]
    await eventually(lambda: slow.running == TOKENIZED_AT_ONCE)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    # Their threads work on: whoever leaves and comes again has to wait for them.
    again = [slow.start(-1) for _ in range(MOST_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await asyncio.wait_for(slow.start(-2), 5)
    slow.go.set()
    await asyncio.gather(*again)
    assert sorted(set(slow.begun)) == [-1, *range(TOKENIZED_AT_ONCE)]


async def test_a_text_that_cannot_be_tokenized_keeps_no_thread(slow: Slow) -> None:
    def refuse() -> list[int]:
        raise ValueError("no")

    for _ in range(2 * TOKENIZED_AT_ONCE):
        with pytest.raises(ValueError, match="no"):
            await slow.size.tokenize(LONG, refuse)
