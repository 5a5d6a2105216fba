from __future__ import annotations

import pytest

from serving.engine.prompt_size import FEWEST_CHARACTERS, PromptSize
from serving.errors import ContextLengthExceeded


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
