"""The `serving` command: bring a cluster up, look at it, and complete a prompt with it.

It is an ordinary client of the HTTP API. It imports neither Ray nor `deployments`, so it starts
fast and works from a machine that has only httpx. What it prints is laid out in `output.py`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

from serving.cli import output
from serving.cli.accounts import accounts
from serving.cli.client import Api, CommandError, expected_shape, make_client
from serving.cli.keys import keys
from serving.cli.options import client_options
from serving.cli.output import Json
from serving.cli.plan import plan
from serving.cli.render_values import render_values
from serving.cli.store import store
from serving.cli.usage import usage

MAX_STOP_SEQUENCES = 4
EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 130, 141


def check_stops(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    if len(value) > MAX_STOP_SEQUENCES:
        raise click.BadParameter(f"at most {MAX_STOP_SEQUENCES} stop sequences, got {len(value)}")
    return list(value)


class QuietGroup(click.Group):
    """Ends without a word on Ctrl-C and when the reader of our output has left."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            # The interpreter flushes stdout once more as it exits; give it somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_BROKEN_PIPE)


@click.group(
    cls=QuietGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  serving up                                     start a local cluster
  serving apply models.yaml                      add and remove models while it runs
  serving status                                 is every model ready?
  serving models                                 which ids can I call?
  serving plan FILE                              which GPUs does a models file need?
  serving render-values FILE                     the same as values of the Helm chart
  serving complete MODEL "Once upon a time"      stream a completion
  serving keys create --account acme             make an API key
  serving usage --by account,model               what was used

\b
Another server than http://127.0.0.1:8000:
  export SERVING_URL=https://llm.example.com SERVING_API_KEY=...

\b
Exit codes:
  0    done (status: every engine model and every hosted model is ready)
  1    the server answered with an error, or its answer broke off
       (status: one of these is not ready, or there is none;
       plan, render-values: something does not fit)
  2    wrong usage, or a models file that cannot be used
  3    no server at the URL
  4    the server refused the API key
  130  interrupted with Ctrl-C
  141  the reader of the output left (`serving complete ... | head -1`)
""",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Serve language models behind one HTTP API, and talk to that API."""
    if ctx.obj is None:  # a test passes its own
        ctx.obj = make_client


for command in (plan, render_values, accounts, keys, usage, store):
    main.add_command(command)


@main.command(
    short_help="Bring the local cluster up.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def up(args: tuple[str, ...]) -> None:
    """Bring the local cluster up: `python -m deployments.up`, with the same arguments."""
    # exec, not import: Ray stays out of this process, and signals go straight to the cluster.
    os.execv(sys.executable, [sys.executable, "-m", "deployments.up", *args])


@main.command(
    short_help="Add, change and remove models of a running service.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def apply(args: tuple[str, ...]) -> None:
    """Make a running service serve what a models file says: `python -m deployments.apply`."""
    os.execv(sys.executable, [sys.executable, "-m", "deployments.apply", *args])


@main.command(
    epilog="""\b
Examples:
  serving status                    one line per model
  serving status --replicas         and one per replica, with its adapters
  serving status --json | jq '.models[] | select(.ready | not).id'
  until serving status >/dev/null 2>&1; do sleep 1; done      wait until ready

\b
Columns:
  REPLICAS  ready / all; an adapter or alias uses those of its base or target
  RUNNING   sequences in the engines' batches; WAITING: queued in the engines
            (both only for engine models, whose adapters share them)
  IN FLIGHT requests on these replicas, whichever id they name
  ADAPTERS  engine: adapters in memory now; adapter: replicas that hold it
"""
)
@click.option("--replicas", is_flag=True, help="Also print one line per replica.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@client_options(default_timeout=10.0)
def status(api: Api, replicas: bool, as_json: bool) -> None:
    """Show whether each model is ready and how busy it is."""
    answer = api.json("GET", "/status")
    with expected_shape("GET /status"):
        ready = output.readiness(answer)
        text = output.status(answer, replicas)
    output.write_line(output.one_line(answer) if as_json else text)
    # Without any model nothing is served, so a script that waits must go on waiting.
    if not ready or not all(ready):
        raise click.exceptions.Exit(1)


@main.command(
    epilog="""\b
Examples:
  serving models                    id, kind, base, context length and parsers
  serving models --all              and the ids that are known and not served here
  serving models --json | jq -r '.data[].id'

\b
Kinds:
  engine    a model with its own replicas
  adapter   a fine-tuned model, served by the replicas of its base
  upstream  a hosted provider's model
  alias     another name for the model in BASE
  retired   a provider's model that exists no more (--all)

\b
Parsers:
  TOOLS     of the model's tool calls (`tool_parser`); without one it takes no tools
  REASONING of what it thinks before it answers (`reasoning_parser`)

\b
With --all:
  STATE     deployed; known: `serving plan` and docs/models.md tell what it takes;
            retired, and when: a request is answered 410
  RELATED   an adapter's base, an alias's target, a retired model's successor,
            the provider of a hosted one
"""
)
@click.option("--all", "everything", is_flag=True, help="Also list what is not served here.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answer as JSON.")
@client_options(default_timeout=10.0)
def models(api: Api, everything: bool, as_json: bool) -> None:
    """List the model ids this key may call."""
    answer = api.json("GET", "/v1/models?all=true" if everything else "/v1/models")
    with expected_shape("GET /v1/models"):
        text = output.all_models(answer) if everything else output.models(answer)
    output.write_line(output.one_line(answer) if as_json else text)


@main.command(
    epilog="""\b
Examples:
  serving complete MODEL "The capital of France is"
  serving complete MODEL - < prompt.txt             the prompt from stdin, as it is
  serving complete MODEL "1, 2, 3," --max-tokens 40 --stop 10 --stop $'\\n\\n'
  serving complete MODEL "Hello" --usage            token counts and speed on stderr
  serving complete MODEL "Hello" --json             the events, one JSON per line
  serving complete MODEL -- "-5 degrees is"         a prompt that starts with a dash

`serving models` lists what MODEL can be.
"""
)
@click.argument("model")
@click.argument("prompt")
@click.option("--stream/--no-stream", default=True, show_default=True, help="Print as it comes.")
@click.option("--temperature", type=click.FloatRange(0, 1), help="0 to 1.  [server default: 0.2]")
@click.option("--max-tokens", type=click.IntRange(min=1), help="[server default: as many as fit]")
@click.option("--top-p", type=click.FloatRange(0, 1), help="Keep the likeliest tokens up to this.")
@click.option("--top-k", type=int, help="Keep this many of the likeliest tokens.")
@click.option(
    "--stop",
    "stop_sequences",
    multiple=True,
    callback=check_stops,
    metavar="TEXT",
    help=f"End before TEXT; give it up to {MAX_STOP_SEQUENCES} times.",
)
@click.option("--account", metavar="ID", help="Account the usage is charged to.")
@click.option("--usage", is_flag=True, help="Print tokens, first-token time and speed on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print what the server sends, as JSON lines.")
@client_options(default_timeout=600.0)
def complete(
    api: Api,
    model: str,
    prompt: str,
    stream: bool,
    account: str | None,
    usage: bool,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Complete PROMPT with MODEL, printing the text as it is generated.

    PROMPT "-" reads it from stdin.
    """
    body: Json = {"model": model, "prompt": prompt, "stream": stream}
    # Only what was given is sent: the server owns the defaults.
    if given := {name: value for name, value in parameters.items() if value not in (None, [])}:
        body["model_parameters"] = given
    if account is not None:
        body["account_id"] = account
    try:
        if prompt == "-":
            body["prompt"] = sys.stdin.buffer.read().decode()
        content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # a file or an argument that is not UTF-8; NaN
        raise click.UsageError(f"the request cannot be written as JSON: {error}") from error

    printer = output.CompletionPrinter(stream=stream, as_json=as_json, clock=time.perf_counter)
    if stream:
        with api.request("POST", "/v4/completions", content) as response:
            try:
                for event in output.events(response.iter_bytes()):
                    if event.name == "error":
                        raise CommandError(printer.failed(event.data))
                    with expected_shape("POST /v4/completions"):
                        chunk = json.loads(event.data)
                        text = output.chunk_text(chunk)
                    printer.add(chunk, text)
            finally:
                printer.end_line()
        if not printer.finished:
            raise CommandError("the stream ended before its last chunk: the text is incomplete")
    else:
        answer = api.json("POST", "/v4/completions", content)
        with expected_shape("POST /v4/completions"):
            text = output.chunk_text(answer)
        printer.add(answer, text)
        printer.end_line()
    if usage:
        click.echo(printer.usage_line(), err=True)
