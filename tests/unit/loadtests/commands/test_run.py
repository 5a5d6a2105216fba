"""`loadtest run` against a server with known delays, in processes of its own as people call it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests.clock import Clock
from loadtests.known.process import KnownProcess
from loadtests.load.plan import plans
from loadtests.main import main
from loadtests.measure.aggregate import Aggregate
from loadtests.measure.summary import Summary
from loadtests.run.worker import drive
from loadtests.scenarios.override import Overrides
from loadtests.scenarios.read import read_scenario, shipped


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnownProcess]:
    log = tmp_path_factory.mktemp("known") / "log"
    process = KnownProcess.start(log, first_s=0.01, gap_s=0.001)
    yield process
    process.stop()


def command(server: KnownProcess, *args: str) -> list[str]:
    return [sys.executable, "-m", "loadtests", "run", *args, "--url", server.url]


def run(server: KnownProcess, out: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(server, *args), "--out", str(out)], capture_output=True, text=True, timeout=60
    )


def summary(out: Path) -> Summary:
    return Summary.model_validate_json((out / "summary.json").read_text())


# What a goal is about does not matter here: the server is no service.
ANY = ("--set", "goals=[]", "--set", "client.max_lag_p99_ms=1000", "--set", "faults=[]")


def test_a_shipped_scenario_leaves_all_that_it_promises(
    server: KnownProcess, tmp_path: Path
) -> None:
    done = run(server, tmp_path, "spike", "--seconds-scale", "0.02", "--rate-scale", "5", *ANY)
    assert done.returncode == 0, done.stdout + done.stderr
    found = summary(tmp_path)
    total = sum(phase.due for phase in found.phases)
    assert total == sum(phase.sent for phase in found.phases) > 0
    assert [phase.name for phase in found.phases] == ["before", "spike", "after"]
    assert "main" in found.source
    records = (tmp_path / "records.jsonl").read_text().splitlines()
    assert len(records) == total
    assert "<html" in (tmp_path / "report.html").read_text()
    assert read_scenario(str(tmp_path / "scenario.yaml")).name == "spike"


async def test_every_shipped_scenario_can_be_sent(server: KnownProcess) -> None:
    """All at once and in this process, since starting one takes more than sending does."""

    async def sent(name: str) -> None:
        scale = 0.0005 if name == "soak" else 0.02
        overrides = Overrides(url=server.url, seconds_scale=scale, rate_scale=5)
        scenario = read_scenario(name, overrides)
        aggregate = Aggregate.of(scenario)
        clock = Clock(time.monotonic())
        driven = await drive(plans(scenario, {}), scenario.target, clock, aggregate.add)
        cells = aggregate.cells.items()
        asked = sum(cell.requests for _, cell in cells)
        assert asked == sum(driven.counts.due.values()) > 0, name
        assert sum(cell.ok + cell.cancelled for _, cell in cells) == asked, name
        assert {phase for (*_, phase), _ in cells} <= {each.name for each in scenario.phases}
        assert {key[3] for key, _ in cells} <= {each.name for each in scenario.traffic}

    await asyncio.gather(*map(sent, shipped()))


def test_a_missed_goal_is_status_1_and_is_told(server: KnownProcess, tmp_path: Path) -> None:
    goal = "goals=[{measure: e2e_p50_ms, at_most: 1}]"
    done = run(server, tmp_path, "smoke", "--seconds-scale", "0.1", *ANY, "--set", goal)
    assert done.returncode == 1
    assert "e2e_p50_ms" in done.stdout
    assert [verdict.met for verdict in summary(tmp_path).verdicts] == [False]


def test_a_client_that_is_too_late_makes_the_run_invalid(
    server: KnownProcess, tmp_path: Path
) -> None:
    lag = "client.max_lag_p99_ms=0.000001"
    done = run(server, tmp_path, "smoke", "--seconds-scale", "0.1", *ANY, "--set", lag)
    assert done.returncode == 3
    assert summary(tmp_path).invalid
    assert "invalid" in done.stdout.lower()


def test_a_mistake_is_status_2_and_sends_nothing(server: KnownProcess, tmp_path: Path) -> None:
    done = run(server, tmp_path / "out", "smoke", "--set", "traffic.chat.outptu=3")
    assert done.returncode == 2
    assert done.stderr.startswith("--set traffic.chat.outptu=3: traffic.3.outptu: there is no such")
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_missing_is_told_before_anything_is_sent(
    server: KnownProcess, tmp_path: Path
) -> None:
    accounts = "traffic.chat.accounts=[{name: a, key_env: NOBODY_HAS_THIS}]"
    done = run(server, tmp_path / "out", "smoke", "--set", accounts)
    assert done.returncode == 2
    assert "the environment has no NOBODY_HAS_THIS; export it" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_interrupt_keeps_what_there_is(server: KnownProcess, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*command(server, "steady"), "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    records = tmp_path / "records-0.jsonl"
    deadline = time.monotonic() + 30
    while not (records.exists() and records.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode in (3, 4)
    assert summary(tmp_path).cuts[0].requests >= 0
    assert (tmp_path / "report.html").exists()


def test_two_shards_start_together_and_merge(server: KnownProcess, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    args = ("smoke", "--seconds-scale", "0.1")
    ways = (("--shard", "0/2", "--listen", address), ("--shard", "1/2", "--join", address))
    parts = [
        subprocess.Popen(
            [*command(server, *args, *ways[n]), "--out", str(tmp_path / str(n))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for n in (0, 1)
    ]
    for number, part in enumerate(parts):
        output, _ = part.communicate(timeout=60)
        # 3: this machine was busy.
        assert part.returncode in ((0, 3) if number == 0 else (0,)), output
    lines = [
        json.loads(line)["metadata"]["request_index"]
        for n in (0, 1)
        for line in (tmp_path / str(n) / "records.jsonl").read_text().splitlines()
    ]
    assert len(lines) == len(set(lines)) > 0
    assert summary(tmp_path / "0").cuts[0].requests == len(lines)
    assert not (tmp_path / "1" / "summary.json").exists()
    states = [str(path) for path in tmp_path.glob("*/shard-*.state")]
    result = CliRunner().invoke(main, ["merge", *states, "--out", str(tmp_path / "all")])
    assert result.exit_code == parts[0].returncode, result.output
    assert summary(tmp_path / "all") == summary(tmp_path / "0")
    assert "<html" in (tmp_path / "all" / "report.html").read_text()
    result = CliRunner().invoke(main, ["merge", states[0], "--out", str(tmp_path / "one")])
    assert result.exit_code == 4
    assert "the run had shards 0 to 1, and these are" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--shard", "2/2"), "'2/2' is no shard, as 0/8 to 7/8 are"),
        (("--shard", "1/2"), "shards start together; give --listen, --join or --start-at"),
        (("--shard", "1/2", "--listen", "0.0.0.0:7"), "shard 0 listens and the others join it"),
        (("--shard", "0/2", "--join", "a:7"), "shard 0 listens and the others join it"),
        (("--listen", "a:7", "--join", "a:7"), "who joins a leader starts when it says"),
        (("--join", "a"), "'a' is no HOST:PORT"),
        (("--start-at", "soon"), "'soon' is no time, as 2026-01-31T12:00:00Z"),
        (("--url", "localhost:8000"), "it must look like http://127.0.0.1:8000"),
        (("--processes", "0"), "0 is not in the range x>=1"),
        (("--key-env", "NOBODY_HAS_THIS"), "the environment has no NOBODY_HAS_THIS"),
    ],
)
def test_mistakes_in_the_arguments(args: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(main, ["run", "smoke", *args])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
