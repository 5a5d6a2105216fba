"""Reads a scenario: from a file, or one of those that come with the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from loadtests.scenarios.check import check
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.explain import explain, nearest, tell
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.override import Overrides, apply, scaled
from loadtests.scenarios.source import parse

SHIPPED = Path(__file__).with_name("shipped")
# The fields that name files; they are meant relative to the scenario's own file.
FILES = ("path", "file", "tokenizer")


def shipped() -> tuple[str, ...]:
    """Return the names of the scenarios that come with the program."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def read_scenario(path_or_name: str, overrides: Overrides | None = None) -> Scenario:
    """Read a scenario and check it.

    What has a slash, or ends in .yaml or .yml, is a file's path; anything else is the name of a
    scenario that comes with the program. Raises ScenarioError with a line for each thing that is
    wrong: the file and line (or the option), what it is, and how to mend it.
    """
    overrides = overrides or Overrides()
    path, name = _find(path_or_name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ScenarioError(f"{name}: cannot be read: {reason}") from None
    source = parse(name, text)
    apply(source, overrides)
    _resolve(source.data, path.parent)
    try:
        scenario = Scenario.model_validate(source.data)
    except ValidationError as error:
        raise ScenarioError("\n".join(explain(source, error))) from None
    problems = list(check(scenario))
    if problems:
        raise ScenarioError("\n".join(tell(source, problems)))
    return scaled(scenario, overrides.seconds_scale, overrides.rate_scale)


def _find(path_or_name: str) -> tuple[Path, str]:
    path = Path(path_or_name)
    if len(path.parts) > 1 or path.suffix in (".yaml", ".yml"):
        return path, path_or_name
    found = SHIPPED / f"{path_or_name}.yaml"
    if not found.exists():
        raise ScenarioError(
            f"{path_or_name}: no scenario of this name comes with the program"
            f"{nearest(path_or_name, shipped())} (a file of yours: ./{path_or_name}.yaml)"
        )
    return found, f"{path_or_name}.yaml"


def _resolve(data: Any, folder: Path) -> None:
    """Make paths of files absolute, so that the scenario means the same wherever it is read."""
    if isinstance(data, list):
        for each in data:
            _resolve(each, folder)
    elif isinstance(data, dict):
        for key, value in data.items():
            if key in FILES and isinstance(value, str):
                data[key] = str((folder / value).absolute())
            elif key not in ("body", "headers"):
                _resolve(value, folder)
