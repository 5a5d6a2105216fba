"""What a model's tokens cost. Money is counted in whole billionths of the operator's currency."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from serving.catalogue.base import Spec

# Prices are by the million tokens, as providers write them.
MILLION = 1_000_000
# The parts of one unit of the currency that money is counted in.
NANO = 1_000_000_000
PerMillion = Annotated[Decimal, Field(ge=0, le=100_000, decimal_places=6)]


class Price(Spec):
    """The price of a million tokens, in the operator's currency, to six decimals.

    `cached` is for those tokens of a prompt that were in the engine's cache; default: as `input`.
    """

    input: PerMillion
    output: PerMillion
    cached: PerMillion | None = None

    def cost(self, prompt: int, cached: int, completion: int) -> int:
        """The cost of a request in billionths, rounded up once. `cached` tokens are among those of
        the prompt."""
        for_cached = self.input if self.cached is None else self.cached
        # A price of six decimals is a whole number of millionths, so this is exact: millionths by
        # the million tokens, which are thousandths of a billionth.
        thousandths = (
            (prompt - cached) * int(self.input * MILLION)
            + cached * int(for_cached * MILLION)
            + completion * int(self.output * MILLION)
        )
        return -(-thousandths // 1000)


def nanos(amount: Decimal) -> int:
    """An amount of money in billionths; what is smaller is cut off."""
    return int(amount * NANO)


def shown(amount: int) -> str:
    """Billionths as people write money, without zeros at the end."""
    text = f"{Decimal(amount) / NANO:f}"
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
