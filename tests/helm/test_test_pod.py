"""`helm test` itself: its script, run against a real router."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from tests.gateway.conftest import Open, open_site  # noqa: F401
from tests.helm.rendered import scenario

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


async def run(
    tmp_path: Path, url: str, model: str = "echo", completes: str = "true"
) -> tuple[int, str]:
    (pod,) = [pod for pod in scenario("one-gpu").of("client") if pod.name.endswith("-test")]
    script = pod.main["args"][0].replace("/tmp/", f"{tmp_path}/")
    running = await asyncio.create_subprocess_exec(
        *pod.main["command"],
        script,
        env={**os.environ, "URL": url, "KEY": "sk-any", "MODEL": model, "COMPLETES": completes},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await running.communicate()
    return running.returncode or 0, said.decode()


async def test_it_passes_where_a_model_completes(open_site: Open, tmp_path: Path) -> None:  # noqa: F811
    site = await open_site()
    code, said = await run(tmp_path, f"http://127.0.0.1:{await site.listen()}")
    assert code == 0, said
    assert "data:" in said
    assert said.endswith("passed\n")
    assert site.counted(endpoint="/v4/completions", outcome="ok") == 2


async def test_models_without_completions_are_listed(open_site: Open, tmp_path: Path) -> None:  # noqa: F811
    site = await open_site(replicas=0)
    url = f"http://127.0.0.1:{await site.listen()}"
    code, said = await run(tmp_path, url, completes="false")
    assert (code, said[-7:]) == (0, "passed\n")


async def test_it_fails_where_nothing_completes(open_site: Open, tmp_path: Path) -> None:  # noqa: F811
    site = await open_site()
    url = f"http://127.0.0.1:{await site.listen()}"
    code, said = await run(tmp_path, url, model="none")
    assert code != 0
    assert "passed" not in said
    code, _ = await run(tmp_path, "http://127.0.0.1:9")
    assert code != 0
