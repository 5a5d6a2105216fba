"""Which code a replica runs, as a digest that changes when an upgrade has to restart it.

Ray Serve restarts a replica only when its deployment's version changes (deployments/app.py). The
digest covers our own source files and every installed package by name and version, so that new
code under the same models file is rolled out, and the same code again restarts nothing. Routers
and engines have one each: a change of the router's code leaves the engines, which take minutes to
load, where they are.

The digest is that of the machine which computes it. Whoever deploys must have the code that the
cluster's nodes have; each replica announces its own digest, so `serving status` shows the truth.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What routers and engines have in common.
_BOTH = (
    "serving",
    *(
        f"deployments/{name}.py"
        for name in ("code", "directory", "leases", "names", "ray_internals")
    ),
)
_NO_REPLICA_RUNS = ("serving/cli",)
ROUTER_CODE = (*_BOTH, "deployments/router.py")
NOT_IN_ROUTERS = (
    *_NO_REPLICA_RUNS,
    *(f"serving/engine/{name}" for name in ("bodies", "hf", "images", "vllm")),
)
DIRECTORY_CODE = ("deployments/code.py", "deployments/directory.py", "serving/wire/entry.py")
ENGINE_CODE = (*_BOTH, "deployments/engine.py")
NOT_IN_ENGINES = (*_NO_REPLICA_RUNS, "serving/router", "serving/upstream")


@functools.cache
def router_code() -> str:
    """The digest of what a router runs."""
    return digest(ROOT, source_files(ROOT, ROUTER_CODE, NOT_IN_ROUTERS), installed_packages())


@functools.cache
def engine_code() -> str:
    """The digest of what an engine replica and its engine server run."""
    return digest(ROOT, source_files(ROOT, ENGINE_CODE, NOT_IN_ENGINES), installed_packages())


@functools.cache
def directory_code() -> str:
    """The digest of what the directory runs."""
    return digest(ROOT, source_files(ROOT, DIRECTORY_CODE, ()), installed_packages())


def source_files(root: Path, include: tuple[str, ...], exclude: tuple[str, ...]) -> list[Path]:
    """The Python files at or below `include` and not below `exclude`, both relative to `root`."""
    left_out = [root / name for name in exclude]
    found = []
    for name in include:
        place = root / name
        for file in [place] if place.is_file() else place.rglob("*.py"):
            if not any(file.is_relative_to(folder) for folder in left_out):
                found.append(file)
    return sorted(found)


def installed_packages() -> list[str]:
    """`name-version` of every package of this environment, by the names of their metadata folders
    (packaging.python.org/en/latest/specifications/recording-installed-packages). Not by `sys.path`,
    to which Ray adds folders of its own in the processes that it starts."""
    folders = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    found = {info.name for folder in folders for info in folder.glob("*.dist-info")}
    return sorted(name.removesuffix(".dist-info") for name in found)


def digest(root: Path, files: list[Path], packages: list[str]) -> str:
    """A digest of the files' names below `root` and contents, the packages and Python's version."""
    found = hashlib.sha256(sys.version.encode())
    for name in packages:
        found.update(f"{name}\n".encode())
    for file in files:
        content = file.read_bytes()
        found.update(f"{file.relative_to(root)}\n{len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:12]
