"""How vLLM starts the processes of an engine: forked from the engine server, or spawned.

A spawned engine core imports vLLM again, 7 s of CPU; a forked one has the engine server's imports.
vLLM forks by default, but not on a CPU, where it sets variables that the C library and OpenMP
read as a process begins: a forked core has none of them. So only an engine of one thread is forked.
"""

from __future__ import annotations

import os
import signal
from functools import partial

import torch
from vllm import plugins
from vllm.platforms import current_platform

from serving.engine.lifetime import die_with_parent

# torch heeds it in a process that begins with it.
NO_COMPILING = "TORCHDYNAMO_DISABLE"
_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"


def start_processes(*, eager: bool) -> None:
    """Choose the way. To be called once vLLM has its configuration, which sets the method too, and
    before it starts a process.

    Args:
        eager: nothing is compiled, as the model's `enforce_eager` asks for. vLLM itself heeds it
            for the model only: the first request with log probabilities had the sampler's
            compiled, for which every other request waited up to 35 s.
    """
    if eager:
        os.environ[NO_COMPILING] = "1"
    if current_platform.is_cpu() and os.environ.get("OMP_NUM_THREADS") == "1":
        os.environ[_METHOD] = "fork"
        os.register_at_fork(after_in_child=partial(_begin, os.getpid()))
    else:
        os.environ[_METHOD] = "spawn"


def _begin(server: int) -> None:
    """Do in a forked process what a spawned one begins with.

    Args:
        server: the engine server's process ID.
    """
    # Its signals would else reach the engine server's event loop, whose file this is.
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if os.getppid() == server:
        # vLLM loads plugins once, as this flag says, and the engine server has. A core's own
        # workers have what the core has loaded.
        plugins.plugins_loaded = False
    if os.environ.get(NO_COMPILING) == "1":
        torch.compiler.set_stance("force_eager")
    die_with_parent()
