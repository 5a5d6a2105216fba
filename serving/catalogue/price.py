"""What a model's tokens cost. Money is counted in whole billionths of the operator's currency."""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
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
        for_input, for_cached, for_output = self._millionths
        total = (prompt - cached) * for_input + cached * for_cached + completion * for_output
        # Millionths by the million tokens are thousandths of a billionth.
        return -(-total // 1000)

    @cached_property
    def _millionths(self) -> tuple[int, int, int]:
        """The prices of input, cached input and output in millionths: whole numbers, as a price has
        six decimals, so all that is computed with them is exact."""
        cached = self.input if self.cached is None else self.cached
        return (
            int(self.input * MILLION),
            int(cached * MILLION),
            int(self.output * MILLION),
        )


def nanos(amount: Decimal) -> int:
    """An amount of money in billionths; what is smaller is cut off."""
    return int(amount * NANO)


def shown(amount: int) -> str:
    """Billionths as people write money, without zeros at the end."""
    text = f"{Decimal(amount) / NANO:f}"
    whole, _, rest = text.partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
