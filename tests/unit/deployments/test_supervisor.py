"""The supervisor of `serving up`, with processes that are called as Ray's are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deployments.supervisor import EXIT_DIED, EXIT_FAILED, RAY_PROCESSES
from tests.live import ROOT


def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.02)


class Supervised:
    """The process of supervised.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: set[psutil.Process] = set()

    def start(self, *arguments: str) -> None:
        with (self.folder / "said").open("wb") as out:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.unit.deployments.supervised"),
                    *(str(self.folder), *arguments),
                ],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def wait_found(self, times: int = 1) -> None:
        """Until it has found all of Ray's processes of the run that counts, the `times`th."""
        until(lambda: self.said.count("driving") == times)
        time.sleep(1.2)  # two looks
        self._known |= set(psutil.Process(self.process.pid).children(recursive=True))

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    def child(self, name: str) -> psutil.Process:
        children = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = [child for child in children if child.cmdline()[:1] == [name]]
        return found

    def driver(self) -> psutil.Process:
        return self.child("raylet").parent()

    def assert_ended(self, status: int, within_s: float = 5.0) -> None:
        assert self.process.wait(within_s) == status, self.said
        assert not [process for process in self._known if process.is_running()]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for process in self._known:
            if process.is_running():
                process.kill()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    one = Supervised(tmp_path)
    yield one
    one.end()


@pytest.mark.parametrize("name", RAY_PROCESSES)
def test_a_process_of_ray_that_ends_ends_everything(supervised: Supervised, name: str) -> None:
    supervised.start("up")
    supervised.wait_found()
    victim = supervised.child(name)
    victim.kill()
    supervised.assert_ended(EXIT_DIED)
    what, log = RAY_PROCESSES[name]
    says = f"{what} (process {victim.pid}) ended; its log: {supervised.folder}/{log}; stopping"
    assert says in supervised.said
    assert supervised.said.endswith("stopped\n")


def test_a_driver_that_is_killed_ends_everything(supervised: Supervised) -> None:
    supervised.start("up")
    supervised.wait_found()
    driver = supervised.driver()
    driver.kill()
    supervised.assert_ended(EXIT_DIED)
    assert f"the process that drives Ray ({driver.pid}) ended with SIGKILL" in supervised.said
    assert f"Ray's logs: {supervised.folder}" in supervised.said


def test_of_two_that_end_together_the_cause_is_named(supervised: Supervised) -> None:
    """Ray's raylet ends itself when its agent is gone."""
    supervised.start("up")
    supervised.wait_found()
    both = (supervised.child("raylet"), supervised.child("ray::DashboardAgent"))
    supervised.process.send_signal(signal.SIGSTOP)
    for process in both:
        process.kill()
    until(lambda: all(process.status() == psutil.STATUS_ZOMBIE for process in both))
    supervised.process.send_signal(signal.SIGCONT)
    supervised.assert_ended(EXIT_DIED)
    assert "Ray's dashboard agent" in supervised.said


def test_it_stops_when_told_to(supervised: Supervised) -> None:
    supervised.start("up")
    supervised.wait_found()
    supervised.process.send_signal(signal.SIGTERM)
    supervised.assert_ended(0)
    assert "stopping\n" in supervised.said


def test_a_start_that_fails(supervised: Supervised) -> None:
    supervised.start("failing", "restart")
    supervised.assert_ended(EXIT_FAILED, 20)


def test_it_starts_again_what_had_been_up(supervised: Supervised) -> None:
    supervised.start("up", "restart")
    supervised.wait_found()
    first = supervised.child("raylet")
    first.kill()
    supervised.wait_found(times=2)
    assert "starting again" in supervised.said
    assert supervised.child("raylet") != first
    supervised.process.send_signal(signal.SIGINT)
    supervised.assert_ended(0)


def test_it_does_not_start_again_what_never_came_up(supervised: Supervised) -> None:
    supervised.start("starting", "restart")
    supervised.wait_found()
    supervised.child("gcs_server").kill()
    supervised.assert_ended(EXIT_DIED)


def test_orphans_are_reaped_while_it_serves(supervised: Supervised) -> None:
    supervised.start("up")
    supervised.wait_found()
    orphan = int((supervised.folder / "orphan").read_text())
    until(lambda: not psutil.pid_exists(orphan), 5)


def test_nothing_outlives_a_supervisor_that_is_killed(supervised: Supervised) -> None:
    """Of what it started itself; Ray sees to its own processes."""
    supervised.start("up")
    supervised.wait_found()
    driver = supervised.driver()
    supervised.process.kill()
    until(lambda: not driver.is_running() or driver.status() == psutil.STATUS_ZOMBIE, 5)
