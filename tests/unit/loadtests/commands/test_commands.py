"""The commands that send nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadtests.commands.options import environment
from loadtests.main import main
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.read import read_scenario, shipped

TRACE = """\
name: replay
phases:
  - {name: main, seconds: 60, arrivals: {kind: trace, format: azure, path: t.csv}}
  - {name: loop, seconds: 60, arrivals: {kind: closed, concurrency: 4}}
traffic:
  - name: main
    models: {m: 1}
    accounts: [{name: alice, key_env: NOBODY_HAS_THIS}]
    cancel: {share: 1, after_tokens: 3}
faults:
  - {at_s: 30, name: kill, command: kill everything}
"""


def call(*args: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, args, env=env)


@pytest.fixture
def replay(tmp_path: Path) -> str:
    (tmp_path / "t.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,48,10\n2023-11-16 18:17:13.9799600,31,8\n"
    )
    (tmp_path / "replay.yaml").write_text(TRACE)
    return str(tmp_path / "replay.yaml")


def test_validate_needs_no_keys(replay: str) -> None:
    result = call("validate", replay)
    assert (result.exit_code, result.output) == (
        0,
        "replay: phases: 2 (120 s), traffic: 1, goals: 0\n",
    )


def test_mistakes_go_to_stderr_and_are_status_2(replay: str) -> None:
    result = call("validate", replay, "--set", "traffic.main.outptu=3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "--set traffic.main.outptu=3: traffic.0.outptu: there is no such field; did you mean "
        "`output`?\n"
    )


def test_plan_of_a_trace_and_a_closed_loop(replay: str) -> None:
    output = call("plan", replay, "--first", "1").output
    assert "main: 0 to 60 s, trace" in output
    assert "2 requests; 0.03 begin in a second on average, 1.00 in the busiest 1 s" in output
    chart = next(line for line in output.splitlines() if line.startswith("  |"))
    assert [place for place, bar in enumerate(chart[3:-1]) if bar == "█"] == [0, 10]
    assert "output 8 to 10 (half below 10) tokens" in output
    assert "    0.000s main alice m 10 tokens leaves after 3 tokens: " in output
    assert "4 sessions at a time; how many depends on the service (a closed loop)" in output
    assert "at 30 s, kill: kill everything" in output


def test_plan_counts_what_is_sent() -> None:
    output = call("plan", "spike").output
    before, spike, after = (block for block in output.split("\n\n")[1:])
    counts = [int(block.split("\n")[1].split()[0]) for block in (before, spike, after)]
    assert counts[0] == pytest.approx(90, abs=30)
    assert counts[1] == pytest.approx(300, abs=55)
    assert counts[2] == pytest.approx(240, abs=50)
    half = call("plan", "spike", "--rate-scale", "0.5", "--seconds-scale", "0.5").output
    assert int(half.split("\n\n")[2].split("\n")[1].split()[0]) == pytest.approx(75, abs=27)


def test_options_reach_the_plan() -> None:
    output = call("plan", "smoke", "--model", "other", "--seed", "9").output
    assert "seed 9" in output
    assert "models: other " in output
    assert "tiny" not in output


def test_scenarios_are_listed_with_what_they_are_for() -> None:
    result = call("scenarios")
    assert result.exit_code == 0
    for name in shipped():
        line = next(line for line in result.output.splitlines() if line.startswith(f"{name} "))
        assert read_scenario(name).about.split()[0] in line
    assert max(len(line) for line in result.output.splitlines()) <= 84


def test_scenarios_show_a_file_to_begin_with(tmp_path: Path) -> None:
    shown = call("scenarios", "--show", "spike").output
    path = tmp_path / "mine.yaml"
    path.write_text(shown)
    assert read_scenario(str(path)) == read_scenario("spike")


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario.model_validate(
        {
            "name": "x",
            "phases": [{"name": "a", "seconds": 1, "arrivals": {"kind": "poisson", "rate": 1}}],
            "traffic": [{"name": "t", "accounts": [{"name": "b", "key_env": "B"}]}],
            "target": {"key_env": "T"},
        }
    )
    monkeypatch.setenv("B", "sk-b")
    monkeypatch.setenv("OTHER", "sk-other")
    monkeypatch.delenv("T", raising=False)
    assert environment(scenario, None, None) == {"B": "sk-b"}
    assert environment(scenario, "sk-given", None) == {"B": "sk-b", "T": "sk-given"}
    assert environment(scenario, None, "OTHER") == {"B": "sk-b", "T": "sk-other"}
    monkeypatch.setenv("T", "sk-t")
    assert environment(scenario, None, None) == {"B": "sk-b", "T": "sk-t"}
