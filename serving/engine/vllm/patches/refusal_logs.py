"""vLLM's log of requests that it refuses.

Of many that it refuses it writes a traceback, of all for example whose stream has begun, and
callers can cause these as often as they like. Who sent a request, and what was wrong with it, is in
the router's log.
"""

from __future__ import annotations

import logging

from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import GracefulHTTPError, VLLMClientError

from serving.observability.logs import Seldom

# The loggers of vLLM's app.
_LOGGERS = "vllm.entrypoints."
# What vLLM raises to refuse. Of anything else that it answers with a 4xx, a TypeError for example,
# the traceback is kept: it may be a bug.
_REFUSALS = (VLLMClientError, GracefulHTTPError)


def spare_refusals() -> None:
    """Have vLLM's log say of refused requests, at most once a second, what kind they were.

    Call it when vLLM's app is there: the loggers of its parts are found by their names.
    """
    spare = _Spare(Seldom())
    for name in logging.root.manager.loggerDict:
        if name.startswith(_LOGGERS):
            logging.getLogger(name).addFilter(spare)


class _Spare(logging.Filter):
    def __init__(self, seldom: Seldom) -> None:
        super().__init__()
        self._seldom = seldom

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, Exception) or create_error_response(error).error.code == 500:
            return True
        kind = type(error).__name__
        left_out = self._seldom.due(f"{record.name} {kind}")
        if left_out is None:
            return False
        # Without the error's words, which may repeat a prompt.
        record.msg, record.args = "A request was refused: %s (%d left out before)", (kind, left_out)
        if isinstance(error, _REFUSALS):
            record.exc_info = None
        return True
