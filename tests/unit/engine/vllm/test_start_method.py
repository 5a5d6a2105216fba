from __future__ import annotations

import os

import pytest

from serving.engine.vllm.start_method import VARIABLE, kept_start_method


@pytest.mark.parametrize(("wanted", "kept"), [("fork", "fork"), ("spawn", "spawn"), (None, "set")])
def test_only_what_was_asked_for_is_kept(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, kept: str
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if wanted is not None:
        monkeypatch.setenv(VARIABLE, wanted)
    with kept_start_method():
        monkeypatch.setenv(VARIABLE, "set")
    assert os.environ[VARIABLE] == kept


def test_vllm_knows_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.utils.system_utils import get_mp_context

    monkeypatch.setenv(VARIABLE, "fork")
    assert get_mp_context().get_start_method() == "fork"
