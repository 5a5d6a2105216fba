"""No engine process outlives the one that started it.

SIGKILL of the process that holds `AsyncLLM` leaves vLLM's engine core and worker running, with
their GPU memory. Each process of an engine therefore asks the kernel to kill it when its parent
dies (`PR_SET_PDEATHSIG`, prctl(2)): the server does so itself, vLLM's children through the
`vllm.general_plugins` entry point, which vLLM loads in every process it starts.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have this process killed when its parent dies, also if that has already happened.

    The entry point of the vLLM plugin; harmless when called again.
    """
    expected = os.environ.get("SERVING_ENGINE_PARENT")
    if expected is None or int(expected) == os.getpid():
        return  # vLLM used by something else in this environment, or called before
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died between our start and the call, and no signal will come then.
    try:
        os.kill(int(expected), 0)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
    # Children that this process starts must know their own parent.
    os.environ["SERVING_ENGINE_PARENT"] = str(os.getpid())
