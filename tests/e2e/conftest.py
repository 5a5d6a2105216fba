"""The published client SDKs, unmodified, against the running server.

Their dependencies conflict with ours and with each other's, so they have virtual environments of
their own, `.venv-sdk/NAME`, made from `requirements/sdk-NAME.txt` and kept until that file changes.
Most have one each; those in `SHARED` share one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live import KEY, ROOT, Server

Script = Callable[..., Any]

# The environments of the clients that have none by their own name.
SHARED = dict.fromkeys(
    ("openai", "langchain", "pydantic-ai", "instructor", "litellm", "responses"), "tools"
)


# Those that find here what their locks leave out: torch, with CUDA's libraries or without.
BESIDE_OURS = ("guidellm",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.sdk)


@functools.cache
def sdk_python(name: str) -> Path:
    """The interpreter of an SDK's virtual environment, which is made if it is missing or old."""
    requirements = ROOT / "requirements" / f"sdk-{name}.txt"
    stamp = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    folder = ROOT / ".venv-sdk" / name
    python, stamped = folder / "bin" / "python", folder / "stamp"
    if not stamped.exists() or stamped.read_text() != stamp:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--quiet", "--no-deps"]
        subprocess.run([*pip, "-r", str(requirements)], check=True, timeout=600)
        if name in BESIDE_OURS:
            (own,) = (folder / "lib").glob("python*/site-packages")
            (own / "beside.pth").write_text(sysconfig.get_path("purelib"))
        stamped.write_text(stamp)
    return python


@functools.cache
def node_script(name: str) -> Path:
    """The script `scripts/NAME` beside the packages of `requirements/sdk-ai`."""
    if shutil.which("npm") is None:
        pytest.skip("the SDKs for JavaScript need node and npm")
    locks = ROOT / "requirements" / "sdk-ai"
    folder = ROOT / ".venv-sdk" / "ai"
    folder.mkdir(parents=True, exist_ok=True)
    stamped = folder / "stamp"
    lock = (locks / "package-lock.json").read_text()
    if not stamped.exists() or stamped.read_text() != lock:
        for file in ("package.json", "package-lock.json"):
            shutil.copy(locks / file, folder)
        npm = ["npm", "ci", "--silent", "--no-audit", "--no-fund"]
        subprocess.run(npm, cwd=folder, check=True, timeout=600)
        stamped.write_text(lock)
    return Path(shutil.copy(Path(__file__).with_name("scripts") / name, folder))


@pytest.fixture
def sdk_script(live: Server) -> Script:
    """`sdk_script(sdk, job)`: runs `scripts/use_SDK.py` with a job; what it prints as JSON."""

    def run(sdk: str, job: dict[str, Any], *, key: str = KEY, account: str = "acme") -> Any:
        script = Path(__file__).with_name("scripts") / f"use_{sdk.replace('-', '_')}.py"
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and name != "PYTHONPATH"
        }
        job = {"url": live.url, "key": key, "account": account, **job}
        done = subprocess.run(
            [str(sdk_python(SHARED.get(sdk, sdk))), str(script)],
            input=json.dumps(job),
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
