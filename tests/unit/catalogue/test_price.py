"""Money is exact, and never a float."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.catalogue.price import NANO, Price, nanos, shown

PRICES = st.decimals(0, 1000, places=6)
TOKENS = st.integers(0, 10**7)


@given(prices=st.tuples(PRICES, PRICES, PRICES), prompt=TOKENS, share=TOKENS, completion=TOKENS)
def test_a_cost_is_exact_and_rounded_up_once(
    prices: tuple[Decimal, Decimal, Decimal], prompt: int, share: int, completion: int
) -> None:
    cached = min(share, prompt)
    price = Price(input=prices[0], cached=prices[1], output=prices[2])
    exact = sum(
        Fraction(each) * tokens
        for each, tokens in zip(prices, (prompt - cached, cached, completion), strict=True)
    )
    assert price.cost(prompt, cached, completion) == ceil(exact * NANO / 10**6)


def test_cached_tokens_cost_as_others_if_nothing_is_said() -> None:
    price = Price.model_validate({"input": 0.15, "output": "0.6"})
    assert price.cost(1_000_000, 400_000, 0) == 150_000_000
    assert Price.model_validate_json(price.model_dump_json()) == price


@pytest.mark.parametrize(
    "wrong", [{"input": -1}, {"output": "0.0000001"}, {"cached": "NaN"}, {"tokens": 1}]
)
def test_what_is_no_price(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate({"input": 1, "output": 1, **wrong})


@pytest.mark.parametrize(
    ("amount", "text"), [("25", "25.00"), ("0.5", "0.50"), ("1.234567", "1.234567"), ("0", "0.00")]
)
def test_money_is_shown(amount: str, text: str) -> None:
    assert shown(nanos(Decimal(amount))) == text
