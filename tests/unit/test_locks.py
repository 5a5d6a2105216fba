"""The locks hold what pyproject.toml asks for, on every Python that we support."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")


def lock(name: str, python: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    held = [r for r in parsed if r.marker is None or r.marker.evaluate({"python_version": python})]
    pins = {str(canonicalize_name(r.name)): str(r.specifier).removeprefix("==") for r in held}
    assert len(pins) == len(held), "a package has two versions"
    return pins


def test_supported_pythons() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [p for p in ("3.10", *PYTHONS, "3.14") if p in supported] == list(PYTHONS)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("device", "extra"), [("cpu", "cpu"), ("cuda", "gpu")])
def test_locks_hold_what_the_project_asks_for(device: str, extra: str, python: str) -> None:
    pins = lock(device, python) | lock("dev", python)
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras[extra], *extras["dev"]]:
        asked = Requirement(text)
        version = pins[canonicalize_name(asked.name)]
        assert asked.specifier.contains(version, prereleases=True), f"{text}: {version}"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_image_has_what_load_tests_need(device: str, python: str) -> None:
    """The chart's jobs run them from it, without the test tools."""
    own = tomllib.loads((ROOT / "loadtests" / "pyproject.toml").read_text())["project"]
    pins = lock(device, python)
    for text in own["dependencies"]:
        asked = Requirement(text)
        assert asked.specifier.contains(pins[canonicalize_name(asked.name)]), text


@pytest.mark.parametrize("python", PYTHONS)
def test_nothing_that_breaks_on_the_cpu_torch(python: str) -> None:
    pins = lock("cpu", python)
    assert pins["torch"].endswith("+cpu")
    assert not pins.keys() & {"torchvision", "torchaudio", "torchcodec", "triton"}
