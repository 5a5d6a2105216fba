from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.scenarios.override import Overrides
from loadtests.scenarios.read import read_scenario, shipped
from loadtests.scenarios.write import to_yaml


@pytest.mark.parametrize("name", shipped())
def test_what_is_written_reads_the_same(name: str, tmp_path: Path) -> None:
    given = Overrides(models=("a", "b"), rate_scale=2.5, seconds_scale=0.1, seed=7)
    for scenario in (read_scenario(name), read_scenario(name, given)):
        path = tmp_path / "scenario.yaml"
        path.write_text(to_yaml(scenario))
        assert read_scenario(str(path)) == scenario
    assert "seed: 7" in path.read_text()


def test_defaults_are_left_out() -> None:
    assert "ignore_eos" not in to_yaml(read_scenario("smoke"))
    assert "seed: 1" in to_yaml(read_scenario("smoke"))
