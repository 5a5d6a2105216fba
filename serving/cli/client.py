"""The `serving` command as a client of the HTTP API: one server, its answers, its refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
import httpx

from serving.cli import output
from serving.cli.output import Json

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EXIT_NO_SERVER, EXIT_BAD_KEY = 3, 4


class CommandError(click.ClickException):
    """Ends the command with a message on stderr and exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"error: {self.message}", file=file, err=file is None)


class NoServer(CommandError):
    exit_code = EXIT_NO_SERVER


class KeyRefused(CommandError):
    exit_code = EXIT_BAD_KEY


@dataclass(frozen=True)
class Target:
    """Which server to talk to, and as whom."""

    url: httpx.URL
    api_key: str
    key_source: str
    timeout: float

    @property
    def shown(self) -> str:
        # A URL may carry a password for a proxy in front of the server.
        return str(self.url.copy_with(userinfo=b"")).rstrip("/")


ClientFactory = Callable[[Target], httpx.Client]


def make_client(target: Target, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    return httpx.Client(
        base_url=target.url,
        headers={"x-api-key": target.api_key},
        # Reads may take long (a model that starts); a host that does not answer is noticed sooner.
        timeout=httpx.Timeout(target.timeout, connect=min(target.timeout, 10.0)),
        # A company's HTTP_PROXY cannot reach the server on this machine.
        trust_env=target.url.host not in LOOPBACK,
        transport=transport,
    )


class Api:
    """One server, as the commands see it: an answer comes back, or a CommandError is raised."""

    def __init__(self, target: Target, client: httpx.Client) -> None:
        self.target = target
        self.client = client

    @contextmanager
    def request(
        self, method: str, path: str, body: bytes | None = None
    ) -> Iterator[httpx.Response]:
        """A successful response, its body not read yet."""
        headers = {} if body is None else {"content-type": "application/json"}
        url = self.target.shown
        try:
            with self.client.stream(method, path, content=body, headers=headers) as response:
                if not response.is_success:
                    response.read()
                    raise self._refusal(response)
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoServer(
                f"no server at {url} ({error})\n"
                "  start one here:     make serve   (or: serving up)\n"
                "  or use another one: --url URL, or set SERVING_URL"
            ) from error
        except httpx.TimeoutException as error:
            raise CommandError(
                f"{url} was silent for {self.target.timeout:g} s (--timeout changes that)"
            ) from error
        except httpx.RequestError as error:
            raise CommandError(f"the exchange with {url} broke off: {error}") from error

    def json(self, method: str, path: str, body: bytes | None = None) -> Json:
        with self.request(method, path, body) as response:
            response.read()
        with expected_shape(f"{method} {self.target.shown}{path}"):
            answer: Json = dict(response.json())
        return answer

    def _refusal(self, response: httpx.Response) -> CommandError:
        reason = output.refusal(response)
        if response.status_code != 401:
            return CommandError(reason)
        # The server's own words are left out: some servers repeat the key in them.
        return KeyRefused(
            f"{self.target.shown} refused the API key, which came from {self.target.key_source} "
            "(401)\n  give another one with --api-key KEY, or set SERVING_API_KEY"
        )


@contextmanager
def expected_shape(what: str) -> Iterator[None]:
    """Raises a `CommandError` for an answer that cannot be read: something else may be listening at
    the URL, or a server of another version."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CommandError(
            f"{what} answered something this command cannot read ({error!r})"
        ) from error
