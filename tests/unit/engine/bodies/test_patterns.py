"""How large a regular expression is with its repetitions written out."""

from __future__ import annotations

import pytest

from serving.engine.bodies.patterns import pattern_size


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0),
        ("abc", 3),
        ("[a-z]{1,5000}", 5000),
        ("a{3}", 3),
        ("a{,7}b", 8),
        ("a{7,}", 7),
        ("(a{10}){10}", 110),
        ("((a{10}){10}b){10}", 10 * (11 * 10 + 2)),
        ("(ab|c)", 5),
        (r"\{5}", 3),
        (r"\d{5}", 5),
        (r"\p{L}{5}", 5),
        ("[]{9}]{2}", 2),
        (r"[^\]x]{4}", 4),
        ("[a{9}", 10),
        ("(a{9}", 9),
        ("a)b", 3),
        ("{9}", 0),
        ("a{x}", 4),
        ("a{9}{9}", 81),
        ("a{" + "9" * 100 + "}", 999_999_999),
        ("\\", 1),
        ("(" * 500 + "a" + "){2}" * 500, None),
    ],
)
def test_size(pattern: str, size: int | None) -> None:
    found = pattern_size(pattern)
    assert found > 2**400 if size is None else found == size
