"""What the API's description says of vLLM's bodies is what the installed vLLM says."""

from __future__ import annotations

import subprocess
import sys

from tests.live import ROOT


def test_the_schemas_are_those_of_the_installed_vllm() -> None:
    """In a process of its own: vLLM is no guest in this one."""
    command = [sys.executable, "-m", "docs.engine_schemas", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
