"""How vLLM starts an engine's processes, against the installed version."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

PREPARE = """
import os, signal, sys
import torch
from vllm import plugins
from vllm.platforms import current_platform
from vllm.utils.system_utils import get_mp_context
from serving.engine.vllm.patches.processes import start_processes

def child():
    import signal
    plugins.load_general_plugins()
    print(
        os.environ["SERVING_ENGINE_PARENT"] == str(os.getpid()),
        signal.set_wakeup_fd(-1),
        signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        len(called),
        flush=True,
    )

called = []
os.environ["SERVING_ENGINE_PARENT"] = str(os.getpid())
"""


def run(script: str, **env: str) -> list[str]:
    """The lines that it prints, in a process of its own: hooks for forks stay for its life."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(script)],
        env=os.environ | {"VLLM_TARGET_DEVICE": "cpu", "OMP_NUM_THREADS": "1"} | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_a_forked_process_begins_as_a_spawned_one_would() -> None:
    """It dies with its parent, has its own signals, and compiles nothing. It loads plugins: a core
    does, and its workers have them from it."""
    script = """
        plugins.load_plugins_by_group = lambda group: {"test": lambda: called.append(1)}
        plugins.load_general_plugins()
        fds = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(fds[1])
        signal.signal(signal.SIGTERM, lambda *_: None)
        start_processes(eager=True)
        compiled = torch.compile(lambda x: torch._dynamo.is_compiling())

        def in_child():
            child()
            print(compiled(torch.ones(1)), flush=True)
            worker = get_mp_context().Process(target=child)
            worker.start()
            worker.join()

        process = get_mp_context().Process(target=in_child)
        process.start()
        process.join()
        print(get_mp_context().get_start_method(), process.exitcode)
    """
    assert run(script) == ["True -1 True 2", "False", "True -1 True 2", "fork 0"]


@pytest.mark.parametrize("threads", ["2", ""])
def test_an_engine_of_several_threads_is_spawned(threads: str) -> None:
    """What vLLM sets for OpenMP in the environment counts only as a process begins."""
    script = """
        start_processes(eager=False)
        print(get_mp_context().get_start_method(), os.environ.get("TORCHDYNAMO_DISABLE"))
    """
    assert run(script, OMP_NUM_THREADS=threads) == ["spawn None"]
