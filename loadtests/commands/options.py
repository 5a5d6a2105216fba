"""The options that commands share: what is sent, to whom, and where results go."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from loadtests.load.plan import sources
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.override import Overrides
from loadtests.scenarios.read import read_scenario

EXIT_USAGE = 2

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def check_url(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse what is no URL."""
    if value is not None and not value.startswith(("http://", "https://")):
        raise click.BadParameter("it must look like http://127.0.0.1:8000")
    return value


POSITIVE = click.FloatRange(min=0, min_open=True)
OPTIONS = (
    click.argument("scenario"),
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="ID",
        help="Ask for this model instead of those of the scenario. Several: each as often.",
    ),
    click.option(
        "--seconds-scale",
        type=POSITIVE,
        default=1.0,
        metavar="FACTOR",
        help="Make phases so many times as long; faults move with them.",
    ),
    click.option(
        "--rate-scale",
        type=POSITIVE,
        default=1.0,
        metavar="FACTOR",
        help="Send so many times the rate (a closed loop: the concurrency).",
    ),
    click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="PATH=VALUE",
        help="Change any field, as `traffic.chat.output=32`; items of a list by name or number.",
    ),
    click.option("--seed", type=int, metavar="N", help="Other requests of the same kind."),
)


SENDING = (
    click.option("--url", callback=check_url, help="The service.  [default: the scenario's]"),
    click.option("--key", metavar="KEY", help="API key. It shows in lists of processes."),
    click.option(
        "--key-env",
        metavar="NAME",
        help="Environment variable with the API key.  [default: LOADTEST_API_KEY]",
    ),
    click.option("--processes", type=click.IntRange(1), metavar="N", help="Processes that send."),
)


def sends(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the options of whom it sends to; it receives the API keys by the names of
    their variables. A key that is missing is told before anything is sent.

    Goes beneath `reads_scenario`.
    """

    @functools.wraps(command)
    def wrapped(*, scenario: Scenario, key: str | None, key_env: str | None, **rest: Any) -> T:
        keys = environment(scenario, key, key_env)
        sources(scenario, keys)
        return command(scenario=scenario, keys=keys, **rest)

    for option in reversed(SENDING):
        wrapped = option(wrapped)
    return wrapped


def out_option(default: str, what: str = "Where results go.") -> Callable[[F], F]:
    """The option for a folder; `default` is what stands in the help."""
    return click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="FOLDER",
        help=f"{what}  [default: {default}]",
    )


def reads_scenario(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the options; it receives the scenario that they make.

    What is wrong with it goes to stderr, and the exit status is 2.
    """

    @functools.wraps(command)
    def wrapped(
        *,
        scenario: str,
        models: tuple[str, ...],
        seconds_scale: float,
        rate_scale: float,
        sets: tuple[str, ...],
        seed: int | None,
        **rest: Any,
    ) -> T:
        overrides = Overrides(
            url=rest.pop("url", None),
            models=models,
            seed=seed,
            processes=rest.pop("processes", None),
            metrics=rest.pop("metrics", ()),
            metrics_targets=rest.pop("metrics_targets", None),
            usage=rest.pop("usage", None),
            usage_key_env=rest.pop("usage_key_env", None),
            seconds_scale=seconds_scale,
            rate_scale=rate_scale,
            sets=sets,
        )
        with complaints():
            return command(scenario=read_scenario(scenario, overrides), **rest)

    for option in reversed(OPTIONS):
        wrapped = option(wrapped)
    return wrapped


@contextlib.contextmanager
def complaints() -> Iterator[None]:
    """End the program with status 2, and say what is wrong with the scenario."""
    try:
        yield
    except ScenarioError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_USAGE)


def environment(scenario: Scenario, key: str | None, key_env: str | None) -> dict[str, str]:
    """Return the variables that the scenario takes its API keys from, and their values.

    `--key` and `--key-env` stand for the key of the target; accounts have variables of their own,
    and so may have the ledger.
    """
    target, ledger = scenario.target.key_env, scenario.target.usage_key_env
    if ledger is not None and ledger not in os.environ:
        raise click.BadParameter(
            f"the environment has no {ledger}, for the key that may read usage",
            param_hint="--usage-key-env",
        )
    wanted = {target, *([] if ledger is None else [ledger])} | {
        account.key_env
        for traffic in scenario.traffic
        for account in traffic.accounts
        if account.key_env is not None
    }
    found = {name: os.environ[name] for name in wanted if name in os.environ}
    if key_env is not None:
        if key_env not in os.environ:
            raise click.BadParameter(f"the environment has no {key_env}", param_hint="--key-env")
        found[target] = os.environ[key_env]
    if key is not None:
        found[target] = key
    return found


class AnyKey(Mapping[str, str]):
    """Stands for keys where nothing is sent."""

    def __getitem__(self, name: str) -> str:
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, name: object) -> bool:
        return True
