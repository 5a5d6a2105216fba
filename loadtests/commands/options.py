"""The options and the argument of commands that read a scenario."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import click

from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.override import Overrides
from loadtests.scenarios.read import read_scenario

EXIT_USAGE = 2

P = ParamSpec("P")
T = TypeVar("T")

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

    `--key` and `--key-env` stand for the key of the target; accounts have variables of their own.
    """
    target = scenario.target.key_env
    wanted = {target} | {
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
