from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from loadtests.main import COMMANDS, main


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.output.splitlines() if line.startswith("  ")]
    assert {"run", "validate", "plan", "scenarios"} <= set(listed)
    assert "Examples:" in result.output


def test_every_command_has_help_with_examples() -> None:
    for name in main.list_commands(None):  # type: ignore[arg-type]
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Examples:" in result.output
        assert f"loadtest {name}" in result.output
        assert name in COMMANDS


def test_a_misspelt_command() -> None:
    result = CliRunner().invoke(main, ["vaildate", "smoke"])
    assert result.exit_code == 2
    assert "there is no command 'vaildate'; did you mean `validate`?" in result.output


def test_it_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests", "validate", "smoke"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "smoke: phases: 1 (15 s), traffic: 4, goals: 2\n")
