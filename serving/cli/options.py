"""The options that every command which talks to a server has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
import httpx
from click.core import ParameterSource

from serving.cli.client import Api, ClientFactory, Target


def check_url(ctx: click.Context, param: click.Parameter, value: str) -> httpx.URL:
    try:
        url = httpx.URL(value)
    except httpx.InvalidURL as error:
        raise click.BadParameter(str(error)) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise click.BadParameter("it must look like http://127.0.0.1:8000")
    return url


def check_key(ctx: click.Context, param: click.Parameter, value: str) -> str:
    # httpx would refuse these too, with the key in its message.
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise click.BadParameter("it holds a space, a line end or a non-ASCII character")
    return value


def client_options(default_timeout: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the options every client command shares; the command receives an `Api` for them."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True, max=86_400),
            default=default_timeout,
            show_default=True,
            metavar="SECONDS",
            help="Longest silence to accept from the server.",
        )
        @click.option(
            "--api-key",
            envvar="SERVING_API_KEY",
            show_envvar=True,
            default="sk-local",
            show_default="the key of a local `make serve`",
            callback=check_key,
            help="Key to send. Prefer the variable: other users can see a command line.",
        )
        @click.option(
            "--url",
            envvar="SERVING_URL",
            show_envvar=True,
            default="http://127.0.0.1:8000",
            show_default=True,
            callback=check_url,
            help="Where the server is.",
        )
        @click.pass_context
        @functools.wraps(command)
        def run(
            ctx: click.Context, /, url: httpx.URL, api_key: str, timeout: float, **options: Any
        ) -> None:
            key_source = {
                ParameterSource.COMMANDLINE: "--api-key",
                ParameterSource.ENVIRONMENT: "SERVING_API_KEY",
            }.get(
                ctx.get_parameter_source("api_key") or ParameterSource.DEFAULT,
                "the built-in default, which only a local `make serve` accepts",
            )
            target = Target(url, api_key, key_source, timeout)
            factory: ClientFactory = ctx.obj
            with factory(target) as client:
                command(Api(target, client), **options)

        return run

    return decorate
