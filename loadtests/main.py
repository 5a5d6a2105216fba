"""The `loadtest` command. Each subcommand has a module of its own, imported when it is called."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import click

# In the order of --help; the command `name` is `loadtests.commands.NAME.NAME`.
COMMANDS = (
    "run",
    "validate",
    "plan",
    "scenarios",
    "report",
    "compare",
    "capacity",
    "merge",
)


class Commands(click.Group):
    """Imports a subcommand when it is needed: `loadtest --help` starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return [name for name in COMMANDS if importlib.util.find_spec(_module(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one of them, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(_module(cmd_name)), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command for a misspelt one."""
        from loadtests.scenarios.explain import nearest

        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"there is no command {name!r}{nearest(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def _module(name: str) -> str:
    return f"loadtests.commands.{name}"


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  loadtest scenarios                              what comes with the program
  loadtest run smoke --url http://127.0.0.1:8000 --key sk-local
  loadtest run ./mine.yaml --key-env MY_API_KEY --model llama-3-8b-instruct
  loadtest plan spike --rate-scale 10             what it would send, without sending
  loadtest validate ./mine.yaml                   every mistake with its line

\b
Latencies count from the moment a request was due, whatever the server or this
program did to delay it. A run in which this program could not keep up is
declared invalid.
""",
)
def main() -> None:
    """Put load on an OpenAI-compatible service, and say what it can bear."""


if __name__ == "__main__":
    sys.exit(main())
