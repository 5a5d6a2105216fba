"""How vLLM starts its engine core, where the environment says so.

vLLM's CPU platform sets `spawn` while it makes its configuration, whatever was set before. A
spawned core imports vLLM anew, which takes as long as all else in the start of a small model; a
forked one has it already. Fork is safe only while no thread of OpenMP runs in the engine server,
and so with `OMP_NUM_THREADS: "1"`; hence it is the models file that asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "VLLM_WORKER_MULTIPROC_METHOD"


@contextmanager
def kept_start_method() -> Iterator[None]:
    """Undo what the block does to a start method that was set before it."""
    wanted = os.environ.get(VARIABLE)
    yield
    if wanted is not None:
        os.environ[VARIABLE] = wanted
