"""What the command line changes in a scenario."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from loadtests.scenarios.arrivals import Arrivals, Closed, Phase, Ramp, Step, Trace
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.explain import nearest
from loadtests.scenarios.model import Fault, Scenario
from loadtests.scenarios.source import Path, Source


@dataclass(frozen=True)
class Overrides:
    """Values that replace those of a scenario's file.

    `sets` are `path=value`: names of fields with dots between them, items of lists by their number
    or name, and a value in YAML, as `traffic.chat.output=32`.
    """

    url: str | None = None
    models: tuple[str, ...] = ()  # instead of all models and custom IDs
    seed: int | None = None
    processes: int | None = None
    metrics: tuple[str, ...] = ()
    metrics_targets: str | None = None
    usage: str | None = None
    usage_key_env: str | None = None
    seconds_scale: float = 1.0
    rate_scale: float = 1.0
    sets: tuple[str, ...] = ()


def apply(source: Source, overrides: Overrides) -> None:
    """Put the given values into what was read. Raises ScenarioError for a path that is none."""
    # The command's own options before --set: it is the most exact.
    if overrides.models:
        _models(source, overrides.models)
    for option, path, value in (
        ("--url", "target.url", overrides.url),
        ("--seed", "seed", overrides.seed),
        ("--processes", "client.processes", overrides.processes),
        ("--metrics", "target.metrics", list(overrides.metrics) or None),
        ("--metrics-targets", "target.metrics_targets", overrides.metrics_targets),
        ("--usage", "target.usage", overrides.usage),
        ("--usage-key-env", "target.usage_key_env", overrides.usage_key_env),
    ):
        if value is not None:
            _put(source, path, value, f"{option} {value}")
    for text in overrides.sets:
        path, sign, value = text.partition("=")
        if not sign or not path:
            raise ScenarioError(f"--set {text}: write it as PATH=VALUE, as traffic.0.output=32")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ScenarioError(f"--set {text}: the value is no YAML; put it in quotes") from None
        _put(source, path, parsed, f"--set {text}")


def scaled(scenario: Scenario, seconds: float, rate: float) -> Scenario:
    """Return it with longer or shorter phases and higher or lower rates.

    Faults move with the phases; a closed loop has more or fewer sessions at a time, one at least;
    a trace is sent faster or slower.
    """

    def phase(old: Phase) -> Phase:
        return old.model_copy(
            update={"seconds": old.seconds * seconds, "arrivals": _rated(old.arrivals, rate)}
        )

    def fault(old: Fault) -> Fault:
        return old.model_copy(update={"at_s": old.at_s * seconds})

    return scenario.model_copy(
        update={
            "phases": tuple(phase(each) for each in scenario.phases),
            "faults": tuple(fault(each) for each in scenario.faults),
        }
    )


def _rated(arrivals: Arrivals, scale: float) -> Arrivals:
    if isinstance(arrivals, Closed):
        return Closed(kind="closed", concurrency=max(1, round(arrivals.concurrency * scale)))
    if isinstance(arrivals, Trace):
        return arrivals.model_copy(update={"speed": arrivals.speed * scale})
    if isinstance(arrivals, Step):
        return Step(kind="step", rates=tuple(each * scale for each in arrivals.rates))
    if isinstance(arrivals, Ramp):
        return Ramp(kind="ramp", start=arrivals.start * scale, end=arrivals.end * scale)
    return arrivals.model_copy(update={"rate": arrivals.rate * scale})


def _models(source: Source, models: tuple[str, ...]) -> None:
    traffic = source.data.get("traffic") if isinstance(source.data, dict) else None
    for number, each in enumerate(traffic if isinstance(traffic, list) else []):
        if isinstance(each, dict):
            each.pop("custom_ids", None)
            each["models"] = dict.fromkeys(models, 1)
            source.given[("traffic", number, "models")] = f"--model {' --model '.join(models)}"


def _put(source: Source, dotted: str, value: Any, option: str) -> None:
    at, path = source.data, list[str | int]()
    # A dot within quotes is none between fields: models."llama.v2"=1
    parts = [part.strip('"') for part in re.findall(r'(?:"[^"]*"|[^."])+', dotted)]
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if isinstance(at, list):
            number = _item(at, part, option)
            path.append(number)
            if last:
                at[number] = value
            else:
                at = at[number]
        elif isinstance(at, dict):
            path.append(part)
            if last:
                at[part] = value
            else:
                # A bare number may stand where a distribution has fields.
                if not isinstance(at.get(part), dict | list):
                    at[part] = {}
                    source.given[tuple(path)] = option
                at = at[part]
        else:
            raise ScenarioError(f"{option}: `{'.'.join(map(str, path))}` has no fields")
    key: Path = tuple(path)
    for old in [old for old in source.lines if old[: len(key)] == key]:
        del source.lines[old]
    source.given[key] = option


def _item(items: list[Any], part: str, option: str) -> int:
    if part.isdecimal():
        if int(part) < len(items):
            return int(part)
        raise ScenarioError(
            f"{option}: there is no item {part}; they count from 0 to {len(items) - 1}"
        )
    names = [each.get("name") if isinstance(each, dict) else None for each in items]
    if part in names:
        return names.index(part)
    known = [str(name) for name in names if name is not None]
    raise ScenarioError(f"{option}: there is no item {part!r}{nearest(part, known)}")
