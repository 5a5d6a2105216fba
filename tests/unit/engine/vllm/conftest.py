"""vLLM's `AsyncLLM` without an engine."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was made without an engine is not in error, and has nothing to close."""
    from vllm.v1.engine.async_llm import AsyncLLM

    monkeypatch.setattr(AsyncLLM, "errored", False)
    monkeypatch.setattr(AsyncLLM, "__del__", lambda self: None)
