"""A supervised driver with stand-ins for Ray's processes, for test_supervisor.py.

python -m tests.unit.deployments.supervised FOLDER up|failing|starting [restart]
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from deployments.supervisor import EXIT_FAILED, RAY_PROCESSES, Supervisor


def main() -> int:
    folder, mode = Path(sys.argv[1]), sys.argv[2]

    def drive(up: Callable[[], None]) -> int:
        with (folder / "gcs_server.out").open("ab") as log:
            for name in RAY_PROCESSES:
                # The kernel names a process by the file that it runs.
                (folder / name[:15]).unlink(missing_ok=True)
                (folder / name[:15]).symlink_to("/bin/sleep")
                subprocess.Popen([name, "1000"], executable=folder / name[:15], stdout=log)
        # An orphan that ends soon: nobody's but the subreaper's to reap.
        subprocess.run(["sh", "-c", f"sleep 0.3 & echo $! > {folder}/orphan"], check=True)
        print("driving", flush=True)
        if mode == "failing":
            return EXIT_FAILED
        if mode == "up":
            up()
        threading.Event().wait()
        return 0

    return Supervisor(drive, restart="restart" in sys.argv).run()


if __name__ == "__main__":
    sys.exit(main())
