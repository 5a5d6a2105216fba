"""The processes of a service that runs on this machine, told apart by what they are."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator

import psutil

# By words of the command line, the first that fits. The name that the kernel keeps is looked at
# too, as titles do not always show.
KINDS = (
    ("core", ("VLLM::",)),
    ("server", ("serving.engine.server",)),
    ("zygote", ("serving: zygote",)),
    ("router", ("ServeReplica:router",)),
    ("actor", ("ServeReplica:model-",)),
    ("controller", ("ServeController",)),
    ("directory", ("DirectoryActor",)),
)


class Processes:
    """Those below the process of `serving up`."""

    def __init__(self, up: int) -> None:
        """`up`: its process ID. Raises psutil.NoSuchProcess."""
        self._up = psutil.Process(up)

    def running(self) -> Iterator[tuple[str, psutil.Process]]:
        """Yield the running ones of `KINDS`, each with its kind."""
        for process in self._up.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                words = " ".join((process.name(), *process.cmdline()))
                for kind, signs in KINDS:
                    if any(sign in words for sign in signs):
                        yield kind, process
                        break

    def counts(self) -> Counter[str]:
        """Return how many processes of each kind run. Zygotes are left out: a new one comes when
        the next engine server is started."""
        return Counter(kind for kind, _ in self.running() if kind != "zygote")

    def kill(self, kind: str, rng: random.Random) -> bool:
        """Kill one process of a kind; False if none runs."""
        found = [process for each, process in self.running() if each == kind]
        if found:
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(found).kill()
        return bool(found)
