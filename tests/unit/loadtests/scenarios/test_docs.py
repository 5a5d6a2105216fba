"""What docs/load-testing.md shows is right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from loadtests.load.plan import plans
from loadtests.scenarios.arrivals import Arrivals
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.read import read_scenario, shipped
from loadtests.scenarios.traffic import Traffic

DOCS = (Path(__file__).parents[4] / "docs" / "load-testing.md").read_text()


def example(tmp_path: Path) -> Scenario:
    (text,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    path = tmp_path / "example.yaml"
    path.write_text(text)
    return read_scenario(str(path))


def test_the_example_can_be_run(tmp_path: Path) -> None:
    keys = {"ALICE_KEY": "sk-a", "BOB_KEY": "sk-b"}
    for plan in plans(example(tmp_path), keys):
        assert next(plan.sessions)


def test_the_example_has_every_field_of_traffic(tmp_path: Path) -> None:
    given = {field for traffic in example(tmp_path).traffic for field in traffic.model_fields_set}
    assert given == set(Traffic.model_fields) - {"stream"}


def test_every_kind_of_arrivals_is_there() -> None:
    union, _ = get_args(Arrivals)
    for model in get_args(union):
        (kind,) = get_args(model.model_fields["kind"].annotation)
        assert f"kind: {kind}" in DOCS


def test_every_shipped_scenario_is_in_the_table() -> None:
    for name in shipped():
        seconds = sum(phase.seconds for phase in read_scenario(name).phases)
        assert f"| {name} | {seconds:g} |" in DOCS
