"""What a request asks of a model, whatever its endpoint. The pipeline knows this and no body.

An endpoint's parser turns a body into an `Asked`. The pipeline resolves its model and has it turned
into the call that goes to a replica.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol

from serving.wire.body import Body
from serving.wire.messages import AdapterRef, Call, PromptFormat


class Ability(enum.StrEnum):
    """What a model can be asked to do."""

    GENERATE = "generate"
    RESPONSES = "responses"
    EMBED = "embed"
    SCORE = "score"
    TRANSCRIBE = "transcribe"
    TOKENIZE = "tokenize"
    MESSAGES = "messages"
    SEE = "see"
    REASON = "reason"


class Sent(Protocol):
    """The HTTP request, as far as a parser may look at it. `name` is the model ID in its path, if
    there is one, and `path` that of the endpoint whose body this is."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[bytes, bytes]: ...


class Target(Protocol):
    """What a call says of its route: the model that answers, its adapter and prompt format, and
    whether a provider hosts it."""

    @property
    def model(self) -> str: ...
    @property
    def adapter(self) -> AdapterRef | None: ...
    @property
    def prompt_format(self) -> PromptFormat | None: ...
    @property
    def hosted(self) -> bool: ...


class Asked(Protocol):
    """One parsed request. `model` is the ID it names, `account_id` the account its body names."""

    @property
    def model(self) -> str: ...
    @property
    def streams(self) -> bool: ...
    @property
    def account_id(self) -> str | None: ...

    def check(self, abilities: frozenset[Ability]) -> None:
        """Compare what is asked with what the model can do.

        Raises:
            InvalidField: a field asks for more.
        """

    def call(self, request_id: str, target: Target) -> tuple[Call, Body]:
        """The call for a replica, and the body that goes with it."""


class Incoming(Protocol):
    """A request whose body is parsed while it comes, since it is too large to be held.

    `model` is the ID that it names, empty as long as that has not come.
    """

    @property
    def model(self) -> str: ...

    def feed(self, data: bytes) -> None:
        """Look at the next piece of the body.

        Raises:
            InvalidRequest, InvalidField: what is wrong with it.
        """

    def asked(self, body: Body) -> Asked:
        """The request, once all of its body has come.

        Raises: as `feed`.
        """
