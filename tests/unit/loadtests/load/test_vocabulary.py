from __future__ import annotations

import builtins
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from loadtests.load.vocabulary import COMMON, vocabulary_of
from loadtests.load.words import Words
from loadtests.scenarios.errors import ScenarioError

LOCAL = Path(__file__).parents[4] / "local_models" / "weights"


def test_common_words_are_words() -> None:
    assert len(COMMON) == len(set(COMMON)) > 500
    assert all(word.isascii() and word.islower() for word in COMMON)


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-mistral-instruct"])
def test_texts_have_exactly_so_many_tokens(model: str) -> None:
    path = str(LOCAL / model / "tokenizer.json")
    words, tokenizer = Words(vocabulary_of(path), 1), Tokenizer.from_file(path)
    rng = Random(1)
    for count in (1, 2, 7, 64, 1000, *range(20, 60)):
        text = words.text(rng, count)
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == count


def test_a_tokenizer_with_a_mark_for_spaces(tmp_path: Path) -> None:
    """As Llama 2 has it: a word has a mark before it, also at the beginning of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=2000, show_progress=False)
    tokenizer.train_from_iterator([" ".join(COMMON)] * 5, trainer)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    words = Words(vocabulary_of(str(path)), 1)
    for count in (1, 2, 30, 500):
        text = words.text(Random(count), count)
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == count


def test_tokens_over_spaces_are_refused(tmp_path: Path) -> None:
    """Then two words may be one token, and lengths would be wrong."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=4000, show_progress=False)
    rng = Random(1)
    pairs = [" ".join(rng.choices(COMMON[:40], k=4)) for _ in range(3000)]
    tokenizer.train_from_iterator(pairs, trainer)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    with pytest.raises(ScenarioError, match="too few words of one token"):
        vocabulary_of(str(path))


def test_what_is_no_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ScenarioError, match=r"tokenizer.json: cannot be read as a tokenizer.json"):
        vocabulary_of(str(path))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def none(name: str, *rest: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(ScenarioError, match="pip install tokenizers"):
        vocabulary_of("some/tokenizer.json")
