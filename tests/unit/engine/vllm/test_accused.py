from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serving.engine.vllm.accused import (
    VARIABLE,
    AccusedRequests,
    accuse,
    belongs_to_an_engine_server,
)


def test_nobody_is_accused_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    accuse({"nobody listens": None})
    monkeypatch.setenv(VARIABLE, "")
    accused = AccusedRequests()
    assert accused.read() == {}
    accuse({})
    assert accused.read() == {}


def test_patches_are_for_the_processes_of_an_engine_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not belongs_to_an_engine_server()
    monkeypatch.setenv(VARIABLE, "/proc/1/fd/3")
    assert belongs_to_an_engine_server()
    AccusedRequests()
    assert not belongs_to_an_engine_server(), "the server itself"


def test_other_processes_write_and_this_one_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    accused = AccusedRequests()
    written: list[dict[str, int | None]] = [{"a\n1": None, "b 2": 7}, {"c-3": 0}]
    for charges in written:
        code = f"from serving.engine.vllm.accused import accuse; accuse({charges!r})"
        subprocess.run([sys.executable, "-c", code], env=os.environ, check=True, timeout=30)
    assert accused.read() == written[0] | written[1]
