"""A run as it lies in its folder: the summary, and what each request came to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic import ValidationError

from loadtests.measure.summary import Summary
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.traffic import Slo


class Unreadable(Exception):
    """A folder is no run's, or one that this version cannot read."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a counted request came to. Times are in milliseconds, from due; None: it has none."""

    due_s: float  # since the first request of the run was due
    first_turn: bool  # its time was planned; a later turn is due when the one before has ended
    phase: str
    model: str
    account: str
    traffic: str
    priority: int | None
    outcome: str
    ttft: float | None
    tpot: float | None
    e2e: float | None
    tokens: int
    good: bool
    wrong: bool | None  # None: it has no reference


@dataclass(frozen=True)
class Run:
    """A run. Without observations only its summary can be compared, with those of other runs."""

    name: str
    summary: Summary
    observations: list[Observation]
    scenario: dict[str, Any]


class _Value(msgspec.Struct):
    value: float


class _Metrics(msgspec.Struct):
    time_to_first_token_from_due: _Value | None = None
    request_latency_from_due: _Value | None = None
    inter_token_latency: _Value | None = None
    output_sequence_length: _Value | None = None


class _Metadata(msgspec.Struct):
    credit_issued_ns: int
    benchmark_phase: str
    phase_name: str
    turn_index: int
    traffic: str
    model: str
    account: str
    outcome: str
    priority: int | None = None
    wrong: bool | None = None


class _Line(msgspec.Struct):
    metadata: _Metadata
    metrics: _Metrics


def read_run(folder: Path) -> Run:
    """Read `summary.json` and, where they are, `records.jsonl` and `scenario.yaml`.

    `folder` may be the path of a `summary.json` too. Raises Unreadable.
    """
    if folder.is_file():
        folder = folder.parent
    try:
        summary = Summary.model_validate_json((folder / "summary.json").read_bytes())
    except OSError as error:
        raise Unreadable(
            f"{folder}: there is no summary.json of a run ({error.strerror})"
        ) from error
    except ValidationError as error:
        raise Unreadable(
            f"{folder}/summary.json is not of this version of loadtest: {error}"
        ) from error
    scenario = _scenario(folder, summary)
    records = folder / "records.jsonl"
    try:
        found = list(observations(records, slos(scenario))) if records.exists() else []
    except (OSError, msgspec.DecodeError) as error:
        raise Unreadable(f"{records}: {error}") from error
    return Run(str(folder), summary, found, scenario)


def observations(records: Path, limits: dict[str, Slo]) -> Iterator[Observation]:
    """The counted requests. Raises OSError and msgspec.DecodeError."""
    decoder = msgspec.json.Decoder(_Line)
    with records.open("rb") as lines:
        found = [decoder.decode(line) for line in lines if line.strip()]
    if not found:
        return
    start = min(line.metadata.credit_issued_ns for line in found)
    for line in found:
        if line.metadata.benchmark_phase == "profiling":
            yield _observation(line, start, limits.get(line.metadata.traffic))


def slos(scenario: dict[str, Any]) -> dict[str, Slo]:
    """What a request must meet to be good, by its traffic."""
    if not scenario:
        return {}
    return {each.name: each.slo for each in Scenario.model_validate(scenario).traffic}


def is_good(ttft: float | None, tpot: float | None, e2e: float | None, slo: Slo | None) -> bool:
    """Whether a whole and right answer was in time; what it does not have cannot be late."""
    if slo is None:
        return True
    return not any(
        limit is not None and value is not None and value > limit
        for value, limit in ((ttft, slo.ttft_ms), (tpot, slo.tpot_ms), (e2e, slo.e2e_ms))
    )


def _observation(line: _Line, start: int, slo: Slo | None) -> Observation:
    about, metrics = line.metadata, line.metrics
    ok = about.outcome == "ok"
    ttft = _ms(metrics.time_to_first_token_from_due)
    tpot, e2e = _ms(metrics.inter_token_latency), _ms(metrics.request_latency_from_due)
    return Observation(
        due_s=(about.credit_issued_ns - start) / 1e9,
        first_turn=about.turn_index == 0,
        phase=about.phase_name,
        model=about.model,
        account=about.account,
        traffic=about.traffic,
        priority=about.priority,
        outcome=about.outcome,
        ttft=ttft,
        tpot=tpot,
        e2e=e2e,
        tokens=int(metrics.output_sequence_length.value) if metrics.output_sequence_length else 0,
        good=ok and not about.wrong and is_good(ttft, tpot, e2e, slo),
        wrong=about.wrong,
    )


def _ms(value: _Value | None) -> float | None:
    return None if value is None else value.value


def _scenario(folder: Path, summary: Summary) -> dict[str, Any]:
    try:
        text = summary.source or (folder / "scenario.yaml").read_text(encoding="utf-8")
        found = yaml.safe_load(text)
    except OSError:
        return {}
    except (ValueError, yaml.YAMLError) as error:
        raise Unreadable(f"{folder}: its scenario cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}
