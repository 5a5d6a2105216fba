"""Runs the scripts of `tests/e2e/scripts` beside a router in process."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from tests.e2e.conftest import sdk_python

SCRIPTS = Path(__file__).parents[1] / "e2e" / "scripts"


async def run(environment: str, script: str, job: dict[str, Any]) -> Any:
    """What a script prints that gets this job, as JSON; `environment` has its SDKs."""
    python = await asyncio.to_thread(sdk_python, environment)
    process = await asyncio.create_subprocess_exec(
        str(python), str(SCRIPTS / script), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    out, errors = await process.communicate(json.dumps(job).encode())
    assert process.returncode == 0, errors.decode()[-4000:]
    return json.loads(out)
