from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from loadtests.commands.compare import compare as command
from loadtests.compare import Comparison, Incomparable, Run, compare, read_run
from loadtests.compare.output import Shown, html
from loadtests.measure.record import Record
from loadtests.output.records import RecordWriter
from tests.unit.loadtests.compare.runs import drifting, made, some
from tests.unit.loadtests.simulated import HOSTILE, Mix, Service, poisson, serve

SEEDS = range(8)
CALM = Service(servers=8, mean_s=0.1, failing=0.01)


def words(found: Comparison, cut: str = "all") -> dict[str, str]:
    return {line.measure: line.word for line in found.lines if line.cut == cut}


@pytest.mark.parametrize("kind", ["calm", "busy", "drifting"])
def test_runs_of_one_service_differ_by_noise(kind: str) -> None:
    """Of more seeds (48 of each kind, the same requests and others) 0 to 2% had any such word."""
    wrong = 0
    for seed in SEEDS:
        sides = []
        for each in (2 * seed, 2 * seed + 1):
            service = {
                "calm": CALM,
                # Four fifths of the servers are busy: one long request makes many others wait.
                "busy": Service(servers=3, mean_s=0.12, failing=0.01),
                "drifting": Service(servers=8, mean_s=0.15, wave=drifting(each)),
            }[kind]
            sides.append(made(str(each), service, each))
        found = compare([sides[0]], [sides[1]])
        wrong += bool(found.better or found.worse)
        assert len(found.lines) >= 12
    assert wrong <= 0.05 * len(SEEDS)


def test_a_shift_of_a_fifth_is_told_and_its_direction() -> None:
    """Tokens come a fifth slower in every answer: two minutes show it always, as they do with the
    whole distribution of a first token that is 40% slower."""
    told = slower = 0
    for seed in range(3):
        before = made("a", CALM, 2 * seed)
        after = made(
            "b", Service(servers=8, mean_s=0.14, token_s=0.012, failing=0.01), 2 * seed + 1
        )
        found = words(compare([before], [after]))
        told += found["tpot p50"] == "worse"
        slower += found["ttft p50"] == found["ttft p90"] == "worse"
        assert words(compare([after], [before]))["tpot p50"] == "better"
    assert told == 3
    assert slower >= 2


def test_what_matters_to_nobody_is_noise_though_it_is_sure() -> None:
    found = compare(
        [made("a", CALM, 1)],
        [made("b", Service(servers=8, mean_s=0.1, token_s=0.0101, failing=0.01), 2)],
        smallest=0.02,
    )
    line = next(each for each in found.lines if each.measure == "tpot p50")
    assert line.word == "noise"
    assert line.difference is not None
    assert 0.002 < line.difference < 0.02


def test_failures_and_wrong_answers_are_told() -> None:
    bad = Service(servers=8, mean_s=0.1, failing=0.05, wrong=0.05)
    found = words(compare([made("a", CALM, 1)], [made("b", bad, 2)]))
    assert found["errors"] == found["wrong answers"] == found["good"] == "worse"
    assert found["rejected"] == "noise"


def test_a_cut_is_told_apart() -> None:
    mix = Mix(accounts=("first", "second"))
    before, after = made("a", CALM, 1, mix=mix), made("b", CALM, 2, mix=mix)
    slow = [
        each.__class__(**{
            **{name: getattr(each, name) for name in each.__slots__},
            "ttft": each.ttft and each.ttft * 1.5 if each.account == "second" else each.ttft,
        })
        for each in after.observations
    ]  # fmt: skip
    found = compare([before], [Run("b", after.summary, slow, {})])
    assert words(found, "account second")["ttft p50"] == "worse"
    assert words(found, "account first")["ttft p50"] == "noise"


def test_few_requests_and_short_runs_are_not_judged() -> None:
    found = compare([made("a", CALM, 1, rate=1)], [made("b", CALM, 2, rate=1)])
    assert words(found)["ttft p99"] == "too few"
    short = compare([made("a", CALM, 1, end_s=20)], [made("b", CALM, 2, end_s=20)])
    assert set(words(short).values()) == {"too few"}


def test_of_several_runs_a_run_is_the_unit() -> None:
    def side(factor: float, seeds: range) -> list[Run]:
        runs = []
        for seed in seeds:
            cuts = some().cuts
            assert cuts[0].ttft
            jitter = 1 + 0.02 * ((seed * 7919) % 5 - 2)
            ttft = cuts[0].ttft.model_copy(update={"p50": 100 * factor * jitter})
            cut = cuts[0].model_copy(update={"ttft": ttft})
            summary = some().model_copy(update={"cuts": [cut]})
            runs.append(Run(str(seed), summary, [], {}))
        return runs

    found = compare(side(1, range(4)), side(1.3, range(4)))
    assert words(found)["ttft p50"] == "worse"
    assert "a run is the unit" in found.how
    assert words(compare(side(1, range(4)), side(1.0, range(4, 8))))["ttft p50"] == "noise"


def test_runs_that_must_not_be_compared_are_refused() -> None:
    good = made("good", CALM, 1)
    steady = {"phases": [{"name": "steady", "arrivals": {"rate": 10}}], "target": {"url": "x"}}
    faster = {"phases": [{"name": "steady", "arrivals": {"rate": 20}}], "target": {"url": "y"}}
    with pytest.raises(Incomparable, match=r"phases\.steady\.arrivals\.rate: 20, not 10"):
        compare([made("a", CALM, 1, scenario=steady)], [made("b", CALM, 2, scenario=faster)])
    with pytest.raises(Incomparable, match="seeds"):
        compare([good], [made("b", CALM, 2, stimulus=2)])
    invalid = made("b", CALM, 2, invalid=("the client lagged",))
    with pytest.raises(Incomparable, match="b is invalid: the client lagged"):
        compare([good], [invalid])
    forced = compare([good], [invalid], force=True)
    assert forced.forced == ["b is invalid: the client lagged"]
    with pytest.raises(Incomparable, match=r"no records\.jsonl"):
        compare([good], [Run("empty", some(), [], {})])


def test_what_differs_otherwise_is_said() -> None:
    other = made("b", CALM, 2)
    client = {**other.summary.client, "python": "3.13.1"}
    summary = other.summary.model_copy(update={"client": client, "url": "http://other"})
    found = compare([made("a", CALM, 1)], [Run("b", summary, other.observations, {})])
    assert found.differing == [
        "python: 3.11.7 and 3.13.1", "url: http://127.0.0.1:8000 and http://other"
    ]  # fmt: skip


def folder(path: Path, service: Service, seed: int) -> Path:
    records: list[Record] = serve(list(poisson(lambda at: 20.0, 20, 120, 1)), service, seed)
    path.mkdir()
    phases = [some().phases[0].model_copy(update={"counted": True})]
    summary = some().model_copy(update={"phases": phases})
    (path / "summary.json").write_text(summary.model_dump_json())
    with RecordWriter(path / "records.jsonl", lambda: 1.8e9) as writer:
        for record in records:
            writer.write(record)
    return path


def test_the_command_reads_folders_and_gates(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", CALM, 1)
    b = folder(tmp_path / "b", CALM, 2)
    slow = folder(tmp_path / "slow", Service(servers=8, mean_s=0.1, token_s=0.02, failing=0.01), 3)
    run = CliRunner().invoke
    page = tmp_path / "page.html"
    same = run(command, [str(a), str(b), "--fail-on", "any", "--html", str(page)])
    assert same.exit_code == 0, same.output
    assert "no difference beyond noise" in same.output
    assert page.read_text().startswith("<!doctype html>")
    worse = run(command, [str(a), str(slow), "--fail-on", "worse"])
    assert worse.exit_code == 1, worse.output
    assert run(command, [str(slow), str(a), "--fail-on", "worse"]).exit_code == 0
    found = json.loads(run(command, [str(a), str(slow), "--json"]).output)
    line = next(each for each in found["lines"] if each["measure"] == "tpot p50")
    assert line["word"] == "worse"
    assert line["low"] < 1 < line["high"] * 1.05, "twice as slow"
    assert run(command, [str(tmp_path), str(b)]).exit_code == 2
    assert run(command, [str(a)]).exit_code == 2
    (b / "summary.json").write_text(
        some().model_copy(update={"seed": 5, "invalid": ["slow client"]}).model_dump_json()
    )
    refused = run(command, [str(a), str(b)])
    assert refused.exit_code == 3
    assert "slow client" in refused.output
    assert "seeds" in refused.output


def test_records_are_read_as_they_were(tmp_path: Path) -> None:
    found = read_run(folder(tmp_path / "a", CALM, 1)).observations
    wanted = made("a", CALM, 1).observations
    assert len(found) == len(wanted) > 1000
    for one, other in zip(found, wanted, strict=True):
        assert one.outcome == other.outcome
        assert one.ttft == (None if other.ttft is None else pytest.approx(other.ttft, abs=1e-3))
        assert one.tokens == other.tokens
        assert one.due_s - found[0].due_s == pytest.approx(other.due_s - wanted[0].due_s, abs=1e-6)


def test_hostile_names_are_shown_as_text() -> None:
    mix = Mix(models=HOSTILE[:4], accounts=(HOSTILE[0], HOSTILE[7]))
    found = compare([made(HOSTILE[0], CALM, 1, mix=mix)], [made("b", CALM, 2, mix=mix)])
    page = html(found)
    assert page.count("<script>") == 1
    assert HOSTILE[1] not in page
    out = io.StringIO()
    Console(file=out, width=160).print(Shown(found, full=True))
    assert "\u202e" not in out.getvalue()
    assert "better, worse" not in out.getvalue()
