from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live import ROOT

OWN_SESSION = """
import os
from deployments.processes import own_session
before = os.getsid(0)
own_session()
assert before != os.getsid(0) == os.getpid() == os.getpgid(0)
"""


@pytest.mark.parametrize("leads", [True, False])
def test_a_process_gets_a_session_of_its_own(leads: bool) -> None:
    """Ray makes every worker the leader of a process group, which may not begin a session."""
    process_group = "process_group=0" if leads else ""
    parent = f"import subprocess, sys; subprocess.run(sys.argv[1:], check=True, {process_group})"
    done = subprocess.run(
        [sys.executable, "-c", parent, sys.executable, "-c", OWN_SESSION],
        cwd=ROOT,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
