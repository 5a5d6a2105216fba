"""The text of a key."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.accounts.secret import PATTERN, digest_of, id_of, is_whole, new_id, new_secret


def test_a_scanner_finds_it_in_a_text_and_knows_it_without_asking() -> None:
    key_id = new_id()
    key = new_secret(key_id)
    assert re.findall(PATTERN, f'api_key = "{key}";') == [key]
    assert is_whole(key)
    assert id_of(key) == key_id
    assert len(key) == 66


def test_what_only_looks_like_one() -> None:
    key = new_secret(new_id())
    changed = key[:30] + ("A" if key[30] != "A" else "B") + key[31:]
    for text in (changed, key[:-1], key + "x", "", "sk-local", key.replace("svk_", "svx_")):
        assert not is_whole(text)
        assert id_of(text) is None


@given(st.integers(0, 65), st.characters())
def test_no_change_of_one_character_goes_unnoticed(place: int, char: str) -> None:
    key = new_secret("svk_0123456789AB")
    changed = key[:place] + char + key[place + 1 :]
    assert is_whole(changed) == (changed == key)


def test_a_key_has_another_secret_each_time() -> None:
    key_id = new_id()
    keys = {new_secret(key_id) for _ in range(100)}
    assert len(keys) == 100
    assert {id_of(key) for key in keys} == {key_id}
    assert len({new_id() for _ in range(100)}) == 100


@pytest.mark.parametrize("key", [b"", b"sk-local", b"\xff\xfe"])
def test_a_digest_tells_nothing_of_the_key(key: bytes) -> None:
    assert len(digest_of(key)) == 32
    assert not key or key not in digest_of(key)
