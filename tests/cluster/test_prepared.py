"""A request that a helper process prepared is answered as one that went straight to vLLM, and
nothing is left of one whose caller leaves meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.live import ROOT
from tests.prepared import EMBED, ENGINES, GENERATE, SEE
from tests.prepared_left import NOTHING_LEFT

# Some of each engine's cases are to be answered, or only refusals would be compared.
ANSWERED = {"vllm": 100, "embed": 5, "vision": 6}


# Each starts an engine of its own. The quickest of them is asked every time.
@pytest.fixture(
    scope="module",
    params=[
        each if each == "embed" else pytest.param(each, marks=pytest.mark.long) for each in ENGINES
    ],
)
def run(request: pytest.FixtureRequest) -> tuple[str, list[Any]]:
    """An engine, and what was found with it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.prepared", "--engine", request.param],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    lines = done.stdout.splitlines()
    return request.param, [json.loads(line) for line in lines if line.startswith(("[", "{"))]


def test_a_prepared_request_is_answered_as_any_other(run: tuple[str, list[Any]]) -> None:
    engine, lines = run
    found = [line for line in lines if isinstance(line, list)]
    cases = {"vllm": GENERATE, "embed": EMBED, "vision": SEE}[engine]
    assert {name.split(", streamed")[0] for name, _, _ in found} >= cases.keys()
    different = [each for each in found if each[1] != each[2]]
    assert not different, "\n".join(json.dumps(each)[:2000] for each in different)
    assert sum(plain[0] == 200 for _, plain, _ in found) >= ANSWERED[engine]
    assert all(plain[0] < 500 for _, plain, _ in found)


def test_nothing_is_left_of_a_caller_that_leaves_while_a_helper_prepares_its_request(
    run: tuple[str, list[Any]],
) -> None:
    _, lines = run
    assert [line for line in lines if isinstance(line, dict)] == [NOTHING_LEFT]
