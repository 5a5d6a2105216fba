"""Numbers as people read them: three digits and a unit."""

from __future__ import annotations

import math


def digits(value: float | None, figures: int = 3) -> str:
    """Three significant digits without an exponent, thousands apart; an en dash for None."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    decimals = max(0, figures - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def milliseconds(value: float | None) -> str:
    """A duration that is given in milliseconds."""
    if value is None or not math.isfinite(value):
        return digits(value)
    if abs(value) >= 120_000:
        return f"{digits(value / 60_000)} min"
    if abs(value) >= 1000:
        return f"{digits(value / 1000)} s"
    if 0 < abs(value) < 0.1:
        return f"{digits(value * 1000)} µs"
    return f"{digits(value)} ms"


def share(value: float | None) -> str:
    """A share of one, as per cent. It says 100% and 0% only of all and none."""
    if value is None:
        return "–"
    if 0.999 < value < 1:
        return f"{math.floor(value * 1e5) / 1e3:.3f}%"
    return f"{digits(100 * value)}%"


def clock(seconds: float) -> str:
    """A time of the run: 0:05, 12:30, 1:02:03."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def amount(value: float | None) -> str:
    """A metric's value: 1.2 G, 34 M, 5,600, 0.7."""
    if value is None:
        return "–"
    for size, letter in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{digits(value / size)} {letter}"
    return digits(value)
