"""Each mistake is one edit of a scenario that is right, and the whole message is looked at."""
# ruff: noqa: E501

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtests.scenarios.arrivals import Step, Trace
from loadtests.scenarios.distributions import Fixed, Uniform
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.override import Overrides
from loadtests.scenarios.read import read_scenario, shipped

GOOD = """\
name: good
phases:
  - name: main
    seconds: 30
    arrivals: {kind: poisson, rate: 5}
traffic:
  - name: chat
    endpoint: chat
    models: {llama: 1}
    accounts:
      - name: alice
    output: 32
goals:
  - {measure: ttft_p99_ms, at_most: 500}
"""


def read(tmp_path: Path, text: str, **overrides: object) -> Scenario:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_scenario(str(path), Overrides(**overrides))  # type: ignore[arg-type]


def mistakes(tmp_path: Path, text: str, **overrides: object) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        read(tmp_path, text, **overrides)
    return [line.removeprefix(f"{tmp_path}{os.sep}") for line in str(error.value).splitlines()]


def test_a_good_one(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert found.traffic[0].output == Fixed(value=32)
    assert found.client.processes == 1


def test_percentages_and_bare_numbers(tmp_path: Path) -> None:
    text = GOOD.replace("ttft_p99_ms, at_most: 500", "error_share, at_most: 2.5%")
    text = text.replace("output: 32", "cancel: {share: 20%, after_s: 1.5}")
    found = read(tmp_path, text)
    assert found.goals[0].at_most == 0.025
    cancel = found.traffic[0].cancel
    assert cancel is not None
    assert cancel.share == 0.2
    assert cancel.after_s == Fixed(value=1.5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        # The fields of one thing.
        ("output: 32", "outptu: 32", "12: traffic.0.outptu: there is no such field; did you mean "
         "`output`?"),
        ("    seconds: 30\n", "", "3: phases.0.seconds: is missing; write `seconds:`"),
        ("name: good\n", "", "1: name: is missing; write `name:`"),
        ("measure: ttft_p99_ms, ", "", "14: goals.0.measure: is missing; write `measure:` (ttft_p99_"
         "ms, tpot_p50_ms, gap_p99_ms, e2e_p90_ms, error_share, rejected_share, goodput_share, "
         "wrong_answers, tokens_per_s, requests_per_s, goodput_per_s, unreconciled, memory_growth_mb)"),
        ("kind: poisson", "kind: poison", "5: phases.0.arrivals: there is no kind 'poison'; did you "
         "mean `poisson`?"),
        ("kind: poisson, ", "", "5: phases.0.arrivals: does not say which kind it is; write `kind:` "
         "with one of `poisson`, `constant`, `gamma`, `ramp`, `step`, `trace`, `closed`"),
        ("{kind: poisson, rate: 5}", "5", "5: phases.0.arrivals: must be fields with a `kind:` (`poisson`, "
         "`constant`, `gamma`, `ramp`, `step`, `trace`, `closed`), and is 5"),
        ("rate: 5", "rat: 5, rate: 5", "5: phases.0.arrivals.rat: there is no such field; did you "
         "mean `rate`?"),
        ("rate: 5", "rate: 0", "5: phases.0.arrivals.rate: must be more than 0, and is 0"),
        ("rate: 5", "rate: fast", "5: phases.0.arrivals.rate: must be a number, and is 'fast'"),
        ("rate: 5", "rate: .inf", "5: phases.0.arrivals.rate: must be a number with an end, and is inf"),
        ("seconds: 30", "seconds: .nan", "4: phases.0.seconds: must be a number with an end, and is nan"),
        ("rate: 5", "rate:", "5: phases.0.arrivals.rate: must be a number, and is empty"),
        ("seconds: 30", "seconds: -1", "4: phases.0.seconds: must be more than 0, and is -1"),
        ("endpoint: chat", "endpoint: char", "8: traffic.0.endpoint: 'char' is none of "
         "'create_completion', 'completions', 'chat', 'embeddings' or 'rerank'"),
        ("{llama: 1}", "{llama: 0}", "9: traffic.0.models.llama: must be more than 0, and is 0"),
        ("{llama: 1}", "llama", "9: traffic.0.models: must have fields of its own, and is 'llama'"),
        ("- name: alice", "alice", "10: traffic.0.accounts: must be a list (lines that begin with "
         "`- `, or [a, b]), and is 'alice'"),
        ("name: alice", "alice: 1\n        name: b", "11: traffic.0.accounts.0.alice: there is no "
         "such field; it can be `headers`, `key_env`, `name`, `weight`"),
        ("output: 32", "output: {kind: uniform, low: 1}", "12: traffic.0.output.high: is missing; "
         "write `high:`"),
        ("output: 32", "output: {kind: file}", "12: traffic.0.output.path: is missing; write "
         "`path:`"),
        ("output: 32", "output: lots", "12: traffic.0.output: must be a number, or have fields with a "
         "`kind:` (`fixed`, `uniform`, `lognormal`, `exponential`, `file`), and is 'lots'"),
        ("output: 32", "prompt: 32", "12: traffic.0.prompt: must have fields of its own (`tokens`, "
         "`file`, `tokenizer`), and is 32"),
        ("output: 32", "cancel: {share: 150%, after_s: 1}", "12: traffic.0.cancel.share: must be at "
         "most 1, and is 1.5"),
        ("output: 32", "cancel: {share: x%, after_s: 1}", "12: traffic.0.cancel.share: must be a "
         "number, and is 'x%'"),
        ("output: 32", "stream: perhaps", "12: traffic.0.stream: must be true or false, and is "
         "'perhaps'"),
        ("output: 32", "images: {width: 2.5}", "12: traffic.0.images.width: must be a whole number, "
         "and is 2.5"),
        ("name: good", "name: 7", "1: name: must be text, and is 7; put it in quotes"),
        ("arrivals: {kind: poisson, rate: 5}", "arrivals: {kind: step, rates: []}", "5: phases.0."
         "arrivals.rates: is empty; it needs at least one item"),
        # What fields are to each other.
        ("rate: 5}\n", "rate: 5}\n    traffic: [chad]\n", "6: phases.0.traffic.0: there is no "
         "traffic 'chad'; did you mean `chat`?"),
        ("rate: 5}\n", "rate: 5}\n    counted: false\n", "2: phases: none is counted; leave out "
         "`counted: false` in one of them"),
        ("traffic:\n", "  - {name: main, seconds: 1, arrivals: {kind: poisson, rate: 1}}\ntraffic:\n",
         "6: phases.1.name: 'main' is the name of another one too; change it"),
        ("- name: alice", "- name: alice\n      - name: alice", "12: traffic.0.accounts.1.name: "
         "'alice' is the name of another one too; change it"),
        ("goals:", "  - {name: b, models: {c: 1}, stream: false}\ngoals:", ""),
        ("rate: 5}\n", "rate: 5}\n    traffic: []\n", "6: phases.0.traffic: is empty; name some "
         "traffic, or leave it out for all of it"),
        ("kind: poisson, rate: 5", "kind: ramp, start: 0, end: 0", "5: phases.0.arrivals.end: the "
         "rate stays 0; make `start` or `end` more"),
        ("kind: poisson, rate: 5", "kind: step, rates: [0, 0]", "5: phases.0.arrivals.rates: all "
         "are 0; make one of them more"),
        ("kind: poisson, rate: 5", "kind: step, rates: [1, -1]", "5: phases.0.arrivals.rates.1: "
         "must be 0 or more, and is -1"),
        ("    models: {llama: 1}\n", "", "7: traffic.0: needs either `models` or `custom_ids`; "
         "write `models: {ID: 1}`"),
        ("output: 32", "custom_ids: {ids: [a]}", "7: traffic.0: has `models` and `custom_ids`; give "
         "each a traffic of its own, with weights"),
        ("models: {llama: 1}", "custom_ids: {pattern: 'a.{n}'}", "9: traffic.0.custom_ids.pattern: "
         "does not say how many; write `count:` beside it"),
        ("models: {llama: 1}", "custom_ids: {pattern: a.n, count: 2}", "9: traffic.0.custom_ids."
         "pattern: must have {n} in it and no other braces, as 'llama.{n:05d}', and is 'a.n'"),
        ("models: {llama: 1}", "custom_ids: {pattern: '{n}{', count: 2}", "9: traffic.0.custom_ids."
         "pattern: must have {n} in it and no other braces, as 'llama.{n:05d}', and is '{n}{'"),
        ("models: {llama: 1}", "custom_ids: {exponent: 2}", "9: traffic.0.custom_ids: needs one of "
         "`pattern` (with `count`), `ids` and `file`"),
        ("models: {llama: 1}", "custom_ids: {ids: [a], count: 2}", "9: traffic.0.custom_ids.count: "
         "goes with `pattern` alone; leave it out"),
        ("output: 32", "output: 0", "12: traffic.0.output: must be a whole number of 1 or more, and "
         "is 0"),
        ("output: 32", "session: {turns: 2.5}", "12: traffic.0.session.turns: must be a whole number "
         "of 1 or more, and is 2.5"),
        ("output: 32", "output: {kind: uniform, low: 9, high: 4}", "12: traffic.0.output.low: is "
         "more than `high`: 9 and 4"),
        ("output: 32", "output: {kind: uniform, low: 0.1, high: 0.9}", "12: traffic.0.output: no "
         "whole number of 1 or more lies between 0.1 and 0.9"),
        ("output: 32", "output: {kind: lognormal, median: 9, low: 9, high: 4}", "12: traffic.0."
         "output.low: is more than `high`: 9 and 4"),
        ("output: 32", "cancel: {share: 1}", "12: traffic.0.cancel: does not say when; write "
         "`after_tokens:` or `after_s:`"),
        ("output: 32", "stream: false", "14: goals.0.measure: whole answers have none; write "
         "`stream: true`, or take e2e"),
        ("output: 32", "cancel: {share: 1, after_tokens: 0}", "12: traffic.0.cancel.after_tokens: must "
         "be a whole number of 1 or more, and is 0"),
        ("endpoint: chat\n", "endpoint: completions\n    images: {}\n", "9: traffic.0.images: "
         "/v1/completions takes none; write `endpoint: chat`"),
        ("endpoint: chat\n", "ignore_eos: true\n", "8: traffic.0.ignore_eos: Create Completion has "
         "no such field; write `endpoint: completions` or `chat`"),
        ("endpoint: chat\n", "priority: 3\n", "8: traffic.0.priority: Create Completion has no such "
         "field; write `endpoint: completions` or `chat`"),
        ("output: 32", "body: {top_p: 1, max_tokens: 3}", "12: traffic.0.body.max_tokens: is written "
         "by the program; say it by `output` of the traffic"),
        ("output: 32", "body: {model_parameters: {max_tokens: 3}}", "12: traffic.0.body."
         "model_parameters.max_tokens: is written by the program; say it by `output` of the traffic"),
        ("output: 32", "prompt: {file: none.txt}", "12: traffic.0.prompt.file: none.txt: cannot be "
         "read: No such file or directory"),
        ("output: 32", "output: {kind: file, path: none.txt}", "12: traffic.0.output.path: none.txt: "
         "cannot be read: No such file or directory"),
        ("output: 32", "prompt: {tokenizer: none.json}", "12: traffic.0.prompt.tokenizer: none.json: "
         "cannot be read as a tokenizer.json: No such file or directory (os error 2)"),
        ("kind: poisson, rate: 5", "kind: trace, format: azure, path: none.csv", "5: phases.0."
         "arrivals.path: none.csv: cannot be read: No such file or directory"),
        ("goals:", "faults: [{at_s: 30, name: kill, command: x}]\ngoals:", "13: faults.0.at_s: the "
         "run is over after 30 s; make it less, or a phase longer"),
        ("ttft_p99_ms", "ttft_p99", "14: goals.0.measure: there is no measure 'ttft_p99'; did you "
         "mean `ttft_p99_ms`?"),
        ("ttft_p99_ms", "beauty", "14: goals.0.measure: there is no measure 'beauty'; it can be as "
         "ttft_p99_ms (ttft, tpot, gap, e2e), error_share or tokens_per_s"),
        (", at_most: 500", "", "14: goals.0: has no bar; write `at_most:` or `at_least:`"),
        ("at_most: 500", "at_most: 5, phase: man", "14: goals.0.phase: there is no phase 'man'; did "
         "you mean `main`?"),
        ("at_most: 500", "at_most: 5, account: bob", "14: goals.0.account: there is no account 'bob'"
         "; it can be `alice`"),
        ("at_most: 500", "at_most: 5, model: lama", "14: goals.0.model: no traffic asks for 'lama'; "
         "did you mean `llama`?"),
        ("kind: poisson, rate: 5", "kind: closed, concurrency: 2}\n    traffic: [chat]\n  - {name: "
         "b, seconds: 1, counted: false, arrivals: {kind: poisson, rate: 1}", ""),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if not message:
        read(tmp_path, text)
        return
    (found,) = mistakes(tmp_path, text)
    assert found.replace(f"{tmp_path}{os.sep}", "") == f"s.yaml:{message}"


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("output: 32", "outptu: 32").replace("kind: poisson", "kind: poison")
    text = text.replace("at_most: 500", "at_most: soon")
    assert [line.split(": ")[0] for line in mistakes(tmp_path, text)] == [
        "s.yaml:5",
        "s.yaml:12",
        "s.yaml:14",
    ]


def test_what_a_whole_answer_does_not_have(tmp_path: Path) -> None:
    text = GOOD.replace("ttft", "e2e").replace("output: 32", "stream: false\n    output: 32")
    read(tmp_path, text)
    text = text.replace("output: 32", "slo: {ttft_ms: 5}\n    cancel: {share: 1, after_tokens: 2}")
    assert mistakes(tmp_path, text) == [
        "s.yaml:13: traffic.0.slo.ttft_ms: a whole answer has none; write `stream: true`, or `e2e_ms`",
        "s.yaml:14: traffic.0.cancel.after_tokens: a whole answer has no tokens to count; write "
        "`stream: true`, or `after_s`",
    ]


def test_what_reads_and_writes_no_text(tmp_path: Path) -> None:
    text = GOOD.replace("measure: ttft_p99_ms", "measure: e2e_p99_ms")
    for endpoint, body in (("embeddings", "{}"), ("rerank", "{documents: [a, b]}")):
        reads = text.replace("endpoint: chat", f"endpoint: {endpoint}\n    body: {body}")
        found = read(tmp_path, reads.replace("output: 32", "stream: false"))
        assert found.traffic[0].endpoint == endpoint
    assert mistakes(tmp_path, text.replace("endpoint: chat", "endpoint: rerank")) == [
        "s.yaml:7: traffic.0.stream: /v1/rerank streams nothing; write `stream: false`",
        "s.yaml:7: traffic.0.body: /v1/rerank compares with `documents`; write a list of texts",
        "s.yaml:12: traffic.0.output: /v1/rerank writes no text and takes no such field; leave it "
        "out",
    ]


def test_what_is_no_mapping(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, "- name: x\n")
    assert found.startswith("s.yaml:1: scenario: must have fields of its own (`name`, `about`")


def test_traffic_that_no_phase_sends(tmp_path: Path) -> None:
    text = GOOD.replace("rate: 5}\n", "rate: 5}\n    traffic: [chat]\n")
    text = text.replace("goals:", "  - {name: b, models: {c: 1}}\ngoals:")
    assert mistakes(tmp_path, text) == [
        "s.yaml:14: traffic.1: no phase sends 'b'; name it in `traffic` of one, or leave it out"
    ]


def test_a_trace_says_lengths_itself(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,1,1\n"
    )
    text = GOOD.replace("kind: poisson, rate: 5", "kind: trace, format: azure, path: t.csv")
    found = read(tmp_path, text)
    arrivals = found.phases[0].arrivals
    assert isinstance(arrivals, Trace)
    assert arrivals.path == str(tmp_path / "t.csv")
    text = text.replace("output: 32", "session: {turns: 2}\n    shared_prefix: {tokens: 4}")
    assert [line.split(": ")[1] for line in mistakes(tmp_path, text)] == [
        "traffic.0.session",
        "traffic.0.shared_prefix",
    ]


def test_files_are_meant_from_the_scenarios_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "p.txt").write_text("Hello!\n")
    (tmp_path / "here" / "s.yaml").write_text(GOOD.replace("output: 32", "prompt: {file: p.txt}"))
    monkeypatch.chdir(tmp_path)
    found = read_scenario("here/s.yaml")
    assert found.traffic[0].prompt.file == str(tmp_path / "here" / "p.txt")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none.yaml: cannot be read: No such file"):
        read_scenario(str(tmp_path / "none.yaml"))


def test_a_name_that_is_none() -> None:
    with pytest.raises(ScenarioError) as error:
        read_scenario("smok")
    assert "did you mean `smoke`?" in str(error.value)
    assert "./smok.yaml" in str(error.value)


# --- what options change ---


def test_set(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        GOOD,
        sets=(
            "traffic.chat.output={kind: uniform, low: 1, high: 3}",
            "traffic.0.accounts.alice.weight=2",
            "phases.main.arrivals={kind: step, rates: [1, 2]}",
            "client.processes=2",
            'traffic.0.models."llama.v2"=3',
            "goals.0.at_most=10%",
        ),
    )
    traffic = found.traffic[0]
    assert traffic.output == Uniform(kind="uniform", low=1, high=3)
    assert traffic.accounts[0].weight == 2
    assert traffic.models == {"llama": 1, "llama.v2": 3}
    assert found.phases[0].arrivals == Step(kind="step", rates=(1, 2))
    assert found.client.processes == 2
    assert found.goals[0].at_most == 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("seed", "--set seed: write it as PATH=VALUE, as traffic.0.output=32"),
        ("seed=[1", "--set seed=[1: the value is no YAML; put it in quotes"),
        ("seed=x", "--set seed=x: seed: must be a whole number, and is 'x'"),
        ("traffic.chad.output=3", "--set traffic.chad.output=3: there is no item 'chad'; did you "
         "mean `chat`?"),
        ("traffic.7.output=3", "--set traffic.7.output=3: there is no item 7; they count from 0 to "
         "0"),
        ("traffic.0.outptu=3", "--set traffic.0.outptu=3: traffic.0.outptu: there is no such field; "
         "did you mean `output`?"),
        ("traffic.0.output.low=3", "--set traffic.0.output.low=3: traffic.0.output: does not say "
         "which kind it is; write `kind:` with one of `fixed`, `uniform`, `lognormal`, "
         "`exponential`, `file`"),
        ("goals.0.phase=warm", "--set goals.0.phase=warm: goals.0.phase: there is no phase 'warm'; "
         "it can be `main`"),
    ],
)  # fmt: skip
def test_mistakes_of_set_name_the_option(tmp_path: Path, given: str, message: str) -> None:
    assert mistakes(tmp_path, GOOD, sets=(given,)) == [message]


def test_models_replace_models_and_custom_ids(tmp_path: Path) -> None:
    text = GOOD.replace("goals:", "  - {name: b, custom_ids: {ids: [x, y]}}\ngoals:")
    found = read(tmp_path, text, models=("a", "b"))
    assert [traffic.models for traffic in found.traffic] == [{"a": 1, "b": 1}] * 2
    assert found.traffic[1].custom_ids is None


def test_url_seed_and_processes(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD, url="http://x:1", seed=7, processes=3)
    assert (found.target.url, found.seed, found.client.processes) == ("http://x:1", 7, 3)
    found = read(tmp_path, GOOD, metrics=("http://x/a", "http://x/b"), metrics_targets="http://x/t")
    assert found.target.metrics == ("http://x/a", "http://x/b")
    assert found.target.metrics_targets == "http://x/t"
    assert mistakes(tmp_path, GOOD, processes=0) == [
        "--processes 0: client.processes: must be more than 0, and is 0"
    ]


def test_more_processes_than_a_closed_loop_has_sessions(tmp_path: Path) -> None:
    text = GOOD.replace("kind: poisson, rate: 5", "kind: closed, concurrency: 2")
    (found,) = mistakes(tmp_path, text, processes=3)
    assert found.startswith("s.yaml:5: phases.0.arrivals.concurrency: is less than the 3 processes")


def test_scales(tmp_path: Path) -> None:
    text = """\
name: all
phases:
  - {name: a, seconds: 10, arrivals: {kind: poisson, rate: 5}}
  - {name: b, seconds: 10, arrivals: {kind: constant, rate: 5}}
  - {name: c, seconds: 10, arrivals: {kind: gamma, rate: 5}}
  - {name: d, seconds: 10, arrivals: {kind: ramp, start: 1, end: 5}}
  - {name: e, seconds: 10, arrivals: {kind: step, rates: [1, 5]}}
  - {name: f, seconds: 10, arrivals: {kind: closed, concurrency: 5}}
  - {name: g, seconds: 10, arrivals: {kind: trace, format: azure, path: t.csv, speed: 2}}
traffic:
  - {name: t, models: {m: 1}}
faults:
  - {at_s: 15, name: kill, command: x}
"""
    (tmp_path / "t.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,1,1\n"
    )
    found = read(tmp_path, text, seconds_scale=0.5, rate_scale=3)
    assert {phase.seconds for phase in found.phases} == {5}
    assert found.faults[0].at_s == 7.5
    a, b, c, d, e, f, g = (phase.arrivals.model_dump() for phase in found.phases)
    assert a["rate"] == b["rate"] == c["rate"] == 15
    assert (d["start"], d["end"], e["rates"], f["concurrency"], g["speed"]) == (
        3,
        15,
        (3, 15),
        15,
        6,
    )
    small = read(tmp_path, text, rate_scale=0.01)
    assert small.phases[5].arrivals.model_dump()["concurrency"] == 1


# --- those that come with the program ---


@pytest.mark.parametrize("name", shipped())
def test_shipped_scenarios_are_right(name: str) -> None:
    found = read_scenario(name)
    assert found.name == name
    assert found.about
    assert found.goals
    assert sum(phase.seconds for phase in found.phases) <= (1800 if name == "soak" else 60)
    replaced = read_scenario(name, Overrides(models=("other",)))
    assert {model for traffic in replaced.traffic for model in traffic.models} == {"other"}


def test_which_are_shipped() -> None:
    assert set(shipped()) == {
        "smoke",
        "steady",
        "ramp",
        "spike",
        "soak",
        "many-adapters",
        "multi-turn-chat",
        "noisy-neighbour",
        "flood",
        "cold-start",
        "cancel-storm",
        "slow-readers",
        "chaos",
    }


def test_a_scenario_survives_json() -> None:
    """Processes that send get it so."""
    for name in shipped():
        scenario = read_scenario(name)
        assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario
