"""Processes are found by their command lines, below that of `serving up` and nowhere else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

from loadtests.inside.processes import Processes


def test_a_kind_is_found_and_killed() -> None:
    waits = [sys.executable, "-c", "input()"]
    children = [
        subprocess.Popen([*waits, word], stdin=subprocess.PIPE)
        for word in ("serving.engine.server", "ServeReplica:router", "serving: zygote", "other")
    ]
    try:
        processes = Processes(os.getpid())
        assert processes.counts() == Counter(server=1, router=1)
        assert not processes.kill("controller", random.Random(1))
        assert processes.kill("server", random.Random(1))
        assert children[0].wait(timeout=10) == -9
        assert processes.counts() == Counter(router=1)
        assert [child.poll() for child in children[1:]] == [None] * 3
    finally:
        for child in children:
            child.kill()
            child.communicate()
