from __future__ import annotations

import argparse

import pytest

from loadtests.inside import recovery


def test_the_bars_are_those_of_the_document() -> None:
    assert (recovery.IDLE_BAR_S, recovery.LOAD_BAR_S) == (15.0, 30.0)


@pytest.mark.parametrize(
    ("worst_s", "options", "status"),
    [
        (15.0, (), 0),
        (15.1, (), 1),
        (15.1, ("--streams", "16"), 0),
        (30.1, ("--streams", "16"), 1),
        (2.6, ("--bar", "2.5"), 1),
        (30.1, ("--streams", "16", "--bar", "40"), 0),
    ],
)
def test_the_worst_round_decides(
    monkeypatch: pytest.MonkeyPatch, worst_s: float, options: tuple[str, ...], status: int
) -> None:
    async def run(_: argparse.Namespace) -> list[float]:
        return [1.0, worst_s, 2.0]

    monkeypatch.setattr(recovery, "run", run)
    assert recovery.main([*options]) == status
