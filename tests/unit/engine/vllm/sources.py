"""What vLLM's functions are written like."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def source(function: Any) -> str:
    return textwrap.dedent(inspect.getsource(function))
