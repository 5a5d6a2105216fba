"""A scenario as the file that it could have been read from."""

from __future__ import annotations

import yaml

from loadtests.scenarios.model import Scenario


def to_yaml(scenario: Scenario) -> str:
    """Return YAML that says the same, with what the command line has changed.

    Fields that nobody has given are left out, but for the seed: it must outlive another default.
    """
    fields = scenario.model_dump(mode="json", exclude_unset=True) | {"seed": scenario.seed}
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
