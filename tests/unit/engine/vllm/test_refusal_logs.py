"""What vLLM's log says of requests that it refuses."""

from __future__ import annotations

import inspect
import io
import logging
from types import ModuleType

import pytest
from vllm.entrypoints.anthropic import serving as messages
from vllm.entrypoints.openai.chat_completion import serving as chat_completion
from vllm.entrypoints.openai.completion import serving as completion
from vllm.exceptions import QueueOverflowError, VLLMValidationError

from serving.engine.vllm.patches.refusal_logs import spare_refusals

LOGGER = completion.logger


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the log says."""
    written = io.StringIO()
    monkeypatch.setattr(LOGGER, "handlers", [logging.StreamHandler(written)])
    monkeypatch.setattr(LOGGER, "filters", [])
    spare_refusals()
    return written


def fail(error: Exception) -> None:
    """As the streams of vLLM's app do."""
    try:
        raise error
    except Exception:
        LOGGER.exception("Error: %s", error)


@pytest.mark.parametrize("module", [completion, chat_completion, messages])
def test_a_refusal_is_logged_with_its_traceback(module: ModuleType) -> None:
    assert "logger.exception(" in inspect.getsource(module), "see spare_refusals"
    assert module.logger.name == module.__name__, "see _LOGGERS"


@pytest.mark.parametrize("error", [VLLMValidationError("secret words"), QueueOverflowError()])
def test_refusals_are_one_line_however_many(log: io.StringIO, error: Exception) -> None:
    for _ in range(100):
        fail(error)
    (line,) = log.getvalue().splitlines()
    assert type(error).__name__ in line
    assert "secret words" not in line


def test_of_what_may_be_a_bug_the_traceback_is_kept_once(log: io.StringIO) -> None:
    for _ in range(100):
        fail(TypeError("unexpected"))
    assert log.getvalue().count("Traceback") == 1


def test_what_is_nobodys_fault_is_logged_as_ever(log: io.StringIO) -> None:
    for _ in range(3):
        fail(RuntimeError("the engine failed"))
        LOGGER.warning("a warning")
    assert log.getvalue().count("Traceback") == 3
    assert log.getvalue().count("a warning") == 3
